"""The paper's Multitask-WLM at full size, with random weights: WavLM-Large, Flan-T5-XL, LoRA of rank 16."""

import resource
import time

import pytest
import torch
from paper_models import AUDIO_TOKEN_ID, multitask, wavlm_large

from speechverse import SpeechVerseForConditionalGeneration


def multitask_wlm(device: str) -> SpeechVerseForConditionalGeneration:
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            return SpeechVerseForConditionalGeneration(multitask(wavlm_large()))
    finally:
        torch.set_default_dtype(dtype)


@pytest.mark.slow
def test_full_size_model_takes_a_training_step_and_generates():
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = multitask_wlm(device).train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert sum(parameter.numel() for parameter in learned) == 28_323_840

    seconds, frames = 8, 100  # 399 encoder frames, strides 2 and 2
    batch = {
        "input_values": 0.1 * torch.randn(1, 16_000 * seconds, device=device),
        "input_ids": torch.tensor([[AUDIO_TOKEN_ID] * frames + [3] * 20 + [1]], device=device),
    }
    labels = torch.randint(2, 32_000, (1, 20), device=device)
    optimizer = torch.optim.AdamW(learned, lr=1e-3)
    losses, times = [], []
    for _ in range(3):
        started = time.perf_counter()
        with torch.autocast(device, torch.bfloat16):
            loss = model(**batch, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())  # which waits for the GPU
        times.append(time.perf_counter() - started)
    assert losses[-1] < losses[0]
    answer = model.eval().generate(**batch, max_new_tokens=5)
    assert answer.shape[0] == 1

    if device == "cuda":
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"\n{device}: {min(times):.2f} s a step of {seconds} s of audio, peak memory {peak / 2**30:.1f} GiB")
