"""Samples -> what the model learns from."""

import random
from typing import NamedTuple

import torch
from torch.utils.data import Dataset

from .feature_cache import FeatureCache
from .filters import CheckedSample
from .recordings import open_audio
from .sample import Sample
from .transcripts import ask_about_text


class Draw(NamedTuple):
    """A sample in an optimizer step.

    Args:
        index (`int`): of the sample in the data.
        step (`int`, *optional*, defaults to 0): the optimizer step that takes it, which says how its instruction is worded.
    """

    index: int
    step: int = 0


class InstructionDataset(Dataset):
    """Encoded samples, one at a time.

    Args:
        checked (`list[CheckedSample]`): the samples, with the lengths that checking them gave.
        processor ([`SpeechVerseProcessor`]): encodes them.
        features ([`FeatureCache`], *optional*): what the encoder gives for their recordings; by default the
            recordings are read, and encoded by the model.
        seed (`int`, *optional*, defaults to 0): which wording of an instruction is drawn is a function of it, of the
            optimizer step and of the sample's index.
    """

    def __init__(self, checked: list[CheckedSample], processor, features: FeatureCache | None = None, seed: int = 0):
        self.checked = checked
        self.processor = processor
        self.features = features
        self.seed = seed

    def __len__(self) -> int:
        return len(self.checked)

    def sample(self, index: int) -> Sample:
        """The sample itself."""
        return self.checked[index].sample

    def instruction(self, draw: Draw) -> str:
        """How a sample is asked for in a step."""
        return self.sample(draw.index).draw_instruction(random.Random(f"{self.seed} {draw.step} {draw.index}"))

    def lengths(self, draw: Draw) -> tuple[int, int, int]:
        """Audio tokens, input tokens (the audio's and the instruction's) and label tokens, without reading the recording."""
        checked = self.checked[draw.index]
        audio, label = checked.audio_tokens or 0, checked.label_tokens or 0
        tokens = audio + self.processor.num_instruction_tokens(self.instruction(draw))
        return audio, tokens if self.processor.is_encoder_decoder else tokens + label, label

    def __getitem__(self, draw: Draw | int) -> dict:
        """What the processor's `pad` takes, and `sample_index`. A mere index is asked for as in step 0."""
        draw = draw if isinstance(draw, Draw) else Draw(draw)
        return self._encode(self.sample(draw.index), self.instruction(draw)) | {"sample_index": draw.index}

    def _encode(self, sample: Sample, instruction: str) -> dict:
        if self.features is None:
            return self.processor.encode(instruction, [open_audio(sample.audio)], sample.target)
        hidden_states = [self.features[sample.audio]]
        return self.processor.encode_features(instruction, "audio_hidden_states", hidden_states, sample.target)


class TranscriptDataset(InstructionDataset):
    """The same samples with their transcripts in place of the recordings; see [`ask_about_text`].

    Args:
        checked, processor, seed: as in [`InstructionDataset`].
    """

    def __init__(self, checked: list[CheckedSample], processor, seed: int = 0):
        super().__init__(checked, processor, seed=seed)

    def instruction(self, draw: Draw) -> str:
        return ask_about_text(
            self.sample(draw.index).transcript, super().instruction(draw), self.processor.audio_token
        )

    def _encode(self, sample: Sample, instruction: str) -> dict:
        return self.processor.encode(instruction, (), sample.target)


class Collator:
    """Pads examples of an [`InstructionDataset`] into a batch, and keeps which samples it holds: `sample_indices`, int64 of
    shape `(batch_size,)`.

    Args:
        processor ([`SpeechVerseProcessor`]): pads them.
    """

    def __init__(self, processor):
        self.processor = processor

    def __call__(self, examples: list[dict]) -> dict:
        batch = self.processor.pad(examples)
        batch["sample_indices"] = torch.tensor([example["sample_index"] for example in examples])
        return batch
