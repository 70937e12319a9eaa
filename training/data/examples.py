"""A few samples as the model sees them, for the eye."""

import random
from collections import defaultdict

import numpy as np

from .filters import CheckedSample
from .recordings import audio_name


AUDIO = "<audio>"


def draw_examples(checked: list[CheckedSample], count: int, seed: int = 0) -> dict[str, list[CheckedSample]]:
    """Some samples of each task, drawn at random but always the same, in their order."""
    by_name = defaultdict(list)
    for index, one in enumerate(checked):
        by_name[one.name].append(index)
    chosen = {
        task: sorted(random.Random(f"{seed} {task}").sample(indices, min(count, len(indices))))
        for task, indices in by_name.items()
    }
    return {task: [checked[index] for index in indices] for task, indices in chosen.items()}


def format_example(one: CheckedSample, processor=None, seed: int = 0) -> str:
    """One sample: its file, what goes into the model, and what should come out.

    Args:
        one ([`CheckedSample`]): the sample.
        processor ([`SpeechVerseProcessor`], *optional*): the text is then what its tokenizer makes of it, read back.
        seed (`int`, *optional*, defaults to 0): of the drawn wording.
    """
    sample = one.sample
    instruction = sample.draw_instruction(random.Random(f"{seed} {sample.key} {audio_name(sample.audio)}"))
    frames = "" if one.audio_tokens is None else f", {one.audio_tokens} audio tokens"
    if processor is None:
        asked = instruction if AUDIO in instruction else AUDIO + instruction
        expected = sample.target
    else:
        asked, expected = _through_tokenizer(processor, instruction, sample.target)
    place = "/".join(part for part in (sample.corpus, sample.split, sample.key) if part)
    head = f"{audio_name(sample.audio)}{f' ({place})' if place else ''}, {one.seconds:.2f} s{frames}"
    asked, expected = (text.strip().replace("\n", "\n         ") for text in (asked, expected))
    return f"  {head}\n    in:  {asked}\n    out: {expected}"


def _through_tokenizer(processor, instruction: str, target: str) -> tuple[str, str]:
    """Instruction and target as tokens, and back: what the tokenizer cannot write shows. A recording is one `<audio>`."""
    one_frame = np.zeros((1, 1), np.float32)
    for _, stride, _ in processor.projector_convolutions:  # as many hidden states as make one frame
        one_frame = np.zeros((len(one_frame) * stride, 1), np.float32)
    num_audios = max(1, instruction.count(processor.audio_token))
    example = processor.encode_features(instruction, "audio_hidden_states", [one_frame] * num_audios, target)
    labels = [token for token in example["labels"] if token >= 0]  # a decoder-only LLM's are -100 before the answer
    ids = example["input_ids"] if processor.is_encoder_decoder else example["input_ids"][: -len(labels)]
    return tuple(processor.tokenizer.decode(tokens, skip_special_tokens=False) for tokens in (ids, labels))
