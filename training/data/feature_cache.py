"""The frozen encoder's output for every recording, computed once: an epoch then costs no encoder pass."""

import numpy as np
import torch
from tqdm.auto import tqdm

from .recordings import Recording, audio_name, audio_size, open_audio


class FeatureCache:
    """Keeps `audio_hidden_states` of recordings in memory, `(frames, hidden_size)` each, float16.

    An hour of speech takes 360 MB at 50 Hz and a width of 1,024; every rank encodes and keeps all of it.

    Args:
        model ([`SpeechVerseForConditionalGeneration`]): its encoder is frozen and its last layer is projected.
        processor ([`SpeechVerseProcessor`]): reads the recordings.
        batch_size (`int`, *optional*, defaults to 16): recordings in one pass.

    Raises:
        ValueError: if the encoder learns, or its layers are mixed: what it gives then changes, or is not one tensor.
    """

    def __init__(self, model, processor, batch_size: int = 16):
        if not model.config.freeze_audio_tower or model.config.layer_mix != "last":
            raise ValueError("cache_features needs a frozen encoder and layer_mix: last.")
        self.model = model
        self.processor = processor
        self.batch_size = batch_size
        self._features: dict[str | Recording, np.ndarray] = {}

    def __getitem__(self, audio: str | Recording) -> np.ndarray:
        return self._features[audio]

    def add(self, audios) -> None:
        """Encodes the recordings that are not there yet, files of like size together."""
        new = sorted(set(audios) - set(self._features), key=lambda audio: (audio_size(audio), audio_name(audio)))
        name = self.processor.audio_input_name
        with tqdm(total=len(new), desc="Encoding recordings", unit="clip") as progress:
            for start in range(0, len(new), self.batch_size):
                batch = new[start : start + self.batch_size]
                features = [self.processor.extract_features(open_audio(audio)) for audio in batch]
                self._features.update(zip(batch, self._encode(name, features), strict=True))
                progress.update(len(batch))

    @torch.no_grad()
    def _encode(self, name: str, features) -> list[np.ndarray]:
        batch = self.processor.pad([{"input_ids": [0], name: [feature]} for feature in features])
        inputs, mask = batch[name].to(self.model.device), batch[self.processor.model_input_names[-1]]
        family = self.model.audio_family
        encoded, lengths = family.encode(
            self.model.audio_tower, inputs.to(self.model.audio_tower.dtype), mask.sum(-1).to(self.model.device)
        )
        rows = encoded.last_hidden_state.half().cpu().numpy()
        if not np.isfinite(rows).all():
            raise ValueError("The encoder's output does not fit float16: train without cache_features.")
        return [row[:length] for row, length in zip(rows, lengths.tolist(), strict=True)]
