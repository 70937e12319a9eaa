"""The frozen encoder's output for every recording, computed once and kept on disk: training then runs no encoder."""

import errno
import hashlib
import json
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import distributed
from tqdm.auto import tqdm

from ...modeling_speechverse.base_checkpoints import fingerprint_of_tensors
from .feature_store import FeatureStore
from .recording_digests import digest_recordings
from .recordings import Recording, audio_name, audio_size, open_audio


VERSION = 1  # goes up when an encoder is run otherwise: what was kept before is then not found
DIGESTS_NAME = "digests.json"
SETTINGS_NAME = "settings.json"
# What says nothing about the numbers that come out.
IRRELEVANT = ("_name_or_path", "architectures", "auto_map", "dtype", "processor_class", "transformers_version")


class FeatureCache:
    """Keeps `audio_hidden_states` of recordings on disk, `(frames, hidden_size)` each, bf16.

    An hour of speech takes 360 MB at 50 Hz and a width of 1,024. A recording is known by its bytes, so that it may move or
    be renamed, and one that has changed is encoded anew. `folder/FINGERPRINT/SETTINGS/` holds what one encoder gives in one
    way; see [`FeatureStore`]. Several ranks share the work, and need a folder that they all see; so may several runs.
    A run that was killed goes on where it was.

    Args:
        model ([`SpeechVerseForConditionalGeneration`]): its encoder is frozen and its last layer is projected.
        processor ([`SpeechVerseProcessor`]): reads the recordings.
        folder (`str` or `Path`): where all features are kept.
        batch_size (`int`, *optional*, defaults to 16): recordings in one pass.
        autocast_dtype (`torch.dtype`, *optional*): `bfloat16` or `float16`, where training runs under autocast; the features
            then are those that it would compute. By default they are computed in the encoder's own precision.

    Raises:
        ValueError: if the encoder learns, or its layers are mixed: what it gives then changes, or is not one tensor.
    """

    def __init__(self, model, processor, folder, batch_size: int = 16, autocast_dtype: torch.dtype | None = None):
        if not model.config.freeze_audio_tower or model.config.layer_mix != "last":
            raise ValueError("cache_features needs a frozen encoder and layer_mix: last.")
        self.model = model
        self.processor = processor
        self.batch_size = batch_size
        self.autocast_dtype = autocast_dtype
        self.settings = self._settings()
        self.digests_file = Path(folder) / DIGESTS_NAME
        settings = json.dumps(self.settings, sort_keys=True)
        self.folder = Path(folder) / self._fingerprint() / hashlib.sha256(settings.encode()).hexdigest()[:16]
        self._store = FeatureStore(self.folder, model.config.audio_config.hidden_size)
        self._digests: dict[str | Recording, str] = {}

    def __getitem__(self, audio: str | Recording) -> torch.Tensor:
        """The features of a recording that was added, `(frames, hidden_size)`, bf16, on the CPU."""
        return self._store[self._digests[audio]]

    def add(self, audios) -> None:
        """Encodes the recordings that are not there yet, those of like size together. All ranks call it with the same.

        Args:
            audios (`Iterable`): paths or [`Recording`]s.

        Raises:
            FileNotFoundError: if a recording is not there.
            OSError: if the disk is full.
            ValueError: if a recording cannot be read, or what the encoder makes of it is not finite.
        """
        new = list(dict.fromkeys(audio for audio in audios if audio not in self._digests))
        try:
            with _first_rank_first():  # the others then read what it has found
                digests = digest_recordings(new, self.digests_file, show_progress=_rank() == 0)
            recordings = dict(zip(digests, new, strict=True))  # those of the same bytes are one
            self._encode_missing(recordings)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise OSError(
                f"The disk of {self.folder} is full: free some space, or set feature_cache_dir to a folder on another one. "
                "What is encoded so far is kept."
            ) from error
        self._digests |= zip(new, digests, strict=True)

    def _encode_missing(self, recordings: dict[str, str | Recording]) -> None:
        self._store.refresh()
        _wait_for_all_ranks()  # or one might already have written what another then does not take for missing
        missing = {digest: audio for digest, audio in recordings.items() if digest not in self._store}
        # By the digest, not by the place in the list: that would differ where another run is writing.
        mine = [digest for digest in missing if int(digest, 16) % _num_ranks() == _rank()]
        mine.sort(key=lambda digest: (audio_size(missing[digest]), digest))
        if mine:
            self._write_settings()
        with tqdm(total=len(mine), desc="Encoding recordings", unit="clip", disable=_rank() != 0) as progress:
            for start in range(0, len(mine), self.batch_size):
                batch = mine[start : start + self.batch_size]
                self._store.add(dict(zip(batch, self._encode([missing[digest] for digest in batch]), strict=True)))
                progress.update(len(batch))
        _wait_for_all_ranks()
        self._store.refresh()
        if lost := [audio for digest, audio in missing.items() if digest not in self._store]:
            raise FileNotFoundError(
                f"{len(lost)} recordings that other ranks have encoded, such as {audio_name(lost[0])}, are not in "
                f"{self.folder}: set feature_cache_dir to a folder that all machines share."
            )

    @torch.no_grad()
    def _encode(self, audios: list[str | Recording]) -> list[torch.Tensor]:
        name, tower = self.processor.audio_input_name, self.model.audio_tower.eval()
        features = [self.processor.extract_features(open_audio(audio)) for audio in audios]
        batch = self.processor.pad([{"input_ids": [0], name: [feature]} for feature in features])
        inputs, mask = batch[name].to(self.model.device), batch[self.processor.model_input_names[-1]]
        with torch.autocast(self.model.device.type, self.autocast_dtype, enabled=self.autocast_dtype is not None):
            encoded, lengths = self.model.audio_family.encode(
                tower, inputs.to(tower.dtype), mask.sum(-1).to(self.model.device)
            )
        rows = [row[:length] for row, length in zip(encoded.last_hidden_state, lengths.tolist(), strict=True)]
        for audio, row in zip(audios, rows, strict=True):
            if not row.isfinite().all():
                raise ValueError(f"What the encoder makes of {audio_name(audio)} is not finite.")
        return rows

    def _fingerprint(self) -> str:
        """That of the encoder's checkpoint; where it is not known, of the weights in memory."""
        base = self.model.config.audio_base or {}
        return base.get("fingerprint") or fingerprint_of_tensors(self.model.audio_tower.state_dict().items())

    def _settings(self) -> dict:
        """All else that the features depend on."""
        extractor = self.processor.feature_extractor.to_dict()
        encoder = self.model.config.audio_config.to_diff_dict()
        return {
            "version": VERSION,
            "encoder": {key: value for key, value in encoder.items() if key not in IRRELEVANT},
            "feature_extractor": {key: value for key, value in extractor.items() if key not in IRRELEVANT},
            "dtype": str(self.model.audio_tower.dtype),
            "autocast_dtype": self.autocast_dtype and str(self.autocast_dtype),
        }

    def _write_settings(self) -> None:
        """For whoever looks into the folder; nothing reads it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / SETTINGS_NAME).write_text(json.dumps(self.settings, indent=2) + "\n", encoding="utf-8")

    def __getstate__(self) -> dict:
        """For a data loader's worker, which reads alone."""
        return self.__dict__ | {"model": None, "processor": None}


def _is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _rank() -> int:
    return distributed.get_rank() if _is_distributed() else 0


def _num_ranks() -> int:
    return distributed.get_world_size() if _is_distributed() else 1


def _wait_for_all_ranks() -> None:
    if _is_distributed():
        distributed.barrier()


@contextmanager
def _first_rank_first():
    if _rank() > 0:
        _wait_for_all_ranks()
    yield
    if _rank() == 0:
        _wait_for_all_ranks()
