"""The frozen encoder's output for every recording, computed once and kept on disk: training then runs no encoder."""

import errno
import hashlib
import json
from pathlib import Path

import torch
from accelerate import PartialState
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ...modeling_speechverse.base_checkpoints import fingerprint_of_tensors
from .feature_store import FeatureStore
from .recording_digests import digest_recordings
from .recordings import Recording, audio_name, audio_size, open_audio


DIGESTS_NAME = "digests.json"
SETTINGS_NAME = "settings.json"
VERSION = 1  # goes up when an encoder is run otherwise: what was kept before is then not found
# What configurations say and no feature depends on.
IRRELEVANT = ("_name_or_path", "architectures", "auto_map", "dtype", "processor_class", "transformers_version")


class FeatureCache:
    """Keeps `audio_hidden_states` of recordings on disk: `(frames, hidden_size)` each, bf16, memory-mapped.

    An hour of speech takes 360 MB at 50 Hz and a width of 1,024. A recording is known by its bytes: it may be moved or
    renamed, and is encoded anew when it has changed. `folder/FINGERPRINT/SETTINGS` holds what one encoder makes of recordings
    in one way, as a [`FeatureStore`]. Ranks of one run and several runs may fill it at once, and a run that was killed goes on
    where it was.

    Args:
        model ([`SpeechVerseForConditionalGeneration`]): its encoder is frozen and its last layer is projected.
        processor ([`SpeechVerseProcessor`]): reads the recordings.
        folder (`str` or `Path`): where features of all encoders are kept; the ranks of a run share it.
        batch_size (`int`, *optional*, defaults to 16): recordings in one pass.
        autocast_dtype (`torch.dtype`, *optional*): `bfloat16` or `float16`, where training runs under autocast: the features
            are then those that it would compute. By default the encoder computes in its own dtype.
        num_workers (`int`, *optional*, defaults to 0): processes that read recordings while others are encoded.

    Raises:
        ValueError: if the encoder learns, or its layers are mixed: what it gives then changes, or is not one tensor.
    """

    def __init__(
        self,
        model,
        processor,
        folder: str | Path,
        batch_size: int = 16,
        autocast_dtype: torch.dtype | None = None,
        num_workers: int = 0,
    ):
        if not model.config.freeze_audio_tower or model.config.layer_mix != "last":
            raise ValueError("cache_features needs a frozen encoder and layer_mix: last.")
        self.model = model
        self.processor = processor
        self.batch_size = batch_size
        self.autocast_dtype = autocast_dtype
        self.num_workers = num_workers
        self._digests_file = Path(folder) / DIGESTS_NAME
        self._digests: dict[str | Recording, str] = {}
        self.settings = self._describe_settings()
        settings_digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()[:16]
        self.folder = Path(folder) / self._fingerprint() / settings_digest
        self._store = FeatureStore(self.folder, model.config.audio_config.hidden_size)

    def __getitem__(self, audio: str | Recording) -> torch.Tensor:
        """The features of a recording that was added, `(frames, hidden_size)`, bf16, on the CPU.

        Raises:
            KeyError: if it was not.
            ValueError: if they are damaged.
        """
        return self._store[self._digests[audio]]

    def add(self, audios) -> None:
        """Encodes the recordings that are not there yet, those of like size together. Every rank calls it with all of them.

        Args:
            audios (`Iterable`): paths or [`Recording`]s.

        Raises:
            FileNotFoundError: if a recording is not there, or the ranks do not share the folder.
            OSError: if the disk is full.
            ValueError: if a recording cannot be read, or what the encoder makes of it is not finite.
        """
        audios = [audio for audio in dict.fromkeys(audios) if audio not in self._digests]
        ranks = PartialState()
        try:
            with ranks.main_process_first():  # the others then read what it has found
                digests = digest_recordings(audios, self._digests_file, show_progress=ranks.is_main_process)
            self._store.refresh()
            recordings = dict(zip(digests, audios, strict=True))  # those of the same bytes are one
            missing = {digest: audio for digest, audio in recordings.items() if digest not in self._store}
            # Whose a recording is does not depend on which others are missing: ranks see more or less of that while
            # another run is writing.
            self._encode({d: a for d, a in missing.items() if int(d, 16) % ranks.num_processes == ranks.process_index})
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise OSError(
                f"No space is left for {self.folder}: free some, or set feature_cache_dir to a folder on another disk. The "
                "recordings encoded so far are kept."
            ) from error
        ranks.wait_for_everyone()
        self._store.refresh()
        if lost := [audio for digest, audio in missing.items() if digest not in self._store]:
            raise FileNotFoundError(
                f"{len(lost)} recordings, such as {audio_name(lost[0])}, were encoded by other ranks, but are not in "
                f"{self.folder}: set feature_cache_dir to a folder that all machines share."
            )
        self._digests |= zip(audios, digests, strict=True)

    def _encode(self, recordings: dict[str, str | Recording]) -> None:
        if not recordings:
            return
        self._write_settings()
        # The largest first: if they do not fit into memory, that is known at once.
        ordered = sorted(recordings, key=lambda digest: (audio_size(recordings[digest]), digest), reverse=True)
        batches = [ordered[start : start + self.batch_size] for start in range(0, len(ordered), self.batch_size)]
        loader = DataLoader(
            EncoderInputs([[recordings[digest] for digest in batch] for batch in batches], self.processor),
            batch_size=None,
            num_workers=self.num_workers,
            generator=torch.Generator(),  # of its own: training draws the same numbers whether or not anything is encoded
        )
        shown = PartialState().is_main_process
        with tqdm(total=len(ordered), desc="Encoding recordings", unit="clip", disable=not shown) as progress:
            for batch, inputs in zip(batches, loader, strict=True):
                features = run_encoder(self.model, self.processor, inputs, self.autocast_dtype)
                for digest, rows in zip(batch, features, strict=True):
                    if not rows.isfinite().all():
                        raise ValueError(
                            f"What the encoder makes of {audio_name(recordings[digest])} is not finite: leave that recording "
                            "out, or compute in another precision."
                        )
                self._store.add(dict(zip(batch, features, strict=True)))
                progress.update(len(batch))

    def _fingerprint(self) -> str:
        """That of the encoder's base; where none is known, of the weights in memory."""
        base = self.model.config.audio_base or {}
        if base.get("fingerprint"):
            return base["fingerprint"]
        weights = self.model.audio_tower.state_dict()
        if any(tensor.is_meta for tensor in weights.values()):
            raise ValueError(
                "cache_features cannot tell which encoder this is: its base is not known, and it is offloaded."
            )
        return fingerprint_of_tensors(weights.items())

    def _describe_settings(self) -> dict:
        """All that the features depend on beside the recording and the encoder's weights."""
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
        """For whoever looks into the folder; no program reads them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / SETTINGS_NAME).write_text(json.dumps(self.settings, indent=2) + "\n", encoding="utf-8")

    def __getstate__(self) -> dict:
        """For a data loader's worker, which only reads."""
        return self.__dict__ | {"model": None, "processor": None}


@torch.no_grad()
def run_encoder(model, processor, inputs: dict, autocast_dtype: torch.dtype | None = None) -> list[torch.Tensor]:
    """What the encoder's last layer makes of each recording, `(frames, hidden_size)`.

    Args:
        model, processor, autocast_dtype: as in [`FeatureCache`].
        inputs (`dict`): a batch of [`EncoderInputs`].
    """
    device, tower = model.device, model.audio_tower.eval()
    _, _, input_name, mask_name = processor.model_input_names
    lengths = inputs[mask_name].sum(-1).to(device)
    with torch.autocast(device.type, autocast_dtype, enabled=autocast_dtype is not None):
        encoded, lengths = model.audio_family.encode(tower, inputs[input_name].to(device, tower.dtype), lengths)
    return [rows[:length] for rows, length in zip(encoded.last_hidden_state, lengths.tolist(), strict=True)]


class EncoderInputs(Dataset):
    """Batches of recordings, read and padded for the encoder.

    Args:
        batches (`list[list]`): paths or [`Recording`]s.
        processor ([`SpeechVerseProcessor`]): reads them.
    """

    def __init__(self, batches: list[list], processor):
        self.batches = batches
        self.processor = processor

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        name = self.processor.audio_input_name
        features = [self.processor.extract_features(open_audio(audio)) for audio in self.batches[index]]
        return dict(self.processor.pad([{"input_ids": [0], name: [feature]} for feature in features]))
