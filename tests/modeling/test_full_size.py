"""The paper's Multitask-WLM at full size, with random weights: WavLM-Large, Flan-T5-XL, LoRA of rank 16."""

import resource
import time

import pytest
import torch
from transformers import T5Config, WavLMConfig

from speechverse import SpeechVerseConfig, SpeechVerseForConditionalGeneration


AUDIO_TOKEN_ID = 32_100


def multitask_wlm(device: str) -> SpeechVerseForConditionalGeneration:
    config = SpeechVerseConfig(
        WavLMConfig(
            hidden_size=1024,
            num_hidden_layers=24,
            num_attention_heads=16,
            intermediate_size=4096,
            do_stable_layer_norm=True,
            feat_extract_norm="layer",
        ),
        T5Config(
            vocab_size=32_128,
            d_model=2048,
            d_kv=64,
            d_ff=5120,
            num_layers=24,
            num_heads=32,
            feed_forward_proj="gated-gelu",
            decoder_start_token_id=0,
        ),
        lora_config={"r": 16, "lora_alpha": 32, "target_modules": ["q", "v"]},
        audio_token_id=AUDIO_TOKEN_ID,
    )
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            return SpeechVerseForConditionalGeneration(config)
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
