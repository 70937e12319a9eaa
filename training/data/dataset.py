"""Samples -> what the model learns from."""

import random

from torch.utils.data import Dataset

from .feature_cache import FeatureCache
from .recordings import open_audio
from .sample import Sample


class InstructionDataset(Dataset):
    """Encoded samples, one at a time.

    Args:
        samples (`list[Sample]`): the samples.
        processor ([`SpeechVerseProcessor`]): encodes them.
        features ([`FeatureCache`], *optional*): what the encoder gives for their recordings; by default the
            recordings are read, and encoded by the model.
        seed (`int`, *optional*, defaults to 0): which wording of an instruction is drawn is a function of it, of the
            epoch and of the sample's index.
    """

    def __init__(self, samples: list[Sample], processor, features: FeatureCache | None = None, seed: int = 0):
        self.samples = samples
        self.processor = processor
        self.features = features
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer: another epoch draws other wordings."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict:
        sample = self.samples[index]
        instruction = sample.draw_instruction(random.Random(f"{self.seed} {self.epoch} {index}"))
        if self.features is None:
            return self.processor.encode(instruction, [open_audio(sample.audio)], sample.target)
        hidden_states = [self.features[sample.audio]]
        return self.processor.encode_features(instruction, "audio_hidden_states", hidden_states, sample.target)
