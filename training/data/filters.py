"""Recordings that cannot be used are left out before training: counted, and listed with the reason."""

import json
import logging
from collections import Counter
from pathlib import Path

import numpy as np
import soundfile
from tqdm.auto import tqdm

from .manifest import Sample


logger = logging.getLogger(__name__)


def drop_unusable(samples: list[Sample], min_seconds: float, max_seconds: float | None) -> tuple[list[Sample], list]:
    """Tells the samples whose recordings can be used from those whose cannot. Every recording is decoded once.

    Args:
        samples (`list[Sample]`): the samples.
        min_seconds, max_seconds (`float`): shortest and longest recording that the encoder takes; `None`: no bound.

    Returns:
        the usable samples, and a list of `{"audio", "reason"}` of the others' recordings.

    Raises:
        ValueError: if no sample is left.
    """
    recordings = sorted({sample.audio for sample in samples})
    progress = tqdm(recordings, desc="Checking recordings", unit="clip")
    reasons = {audio: _unusable(audio, min_seconds, max_seconds) for audio in progress}
    skipped = [{"audio": audio, "reason": reason} for audio, reason in sorted(reasons.items()) if reason]
    usable = [sample for sample in samples if not reasons[sample.audio]]
    if samples and not usable:
        raise ValueError(f"None of the {len(reasons)} recordings can be used; the first: {skipped[0]}.")
    return usable, skipped


def report_skipped(skipped: list[dict], folder: str | Path) -> None:
    """Counts what was left out, by reason, and lists it in `skipped.jsonl`."""
    file = Path(folder) / "skipped.jsonl"
    file.unlink(missing_ok=True)  # an earlier run's
    if not skipped:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in skipped), encoding="utf-8")
    counts = Counter(row["reason"].split(":")[0] for row in skipped)
    shown = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    logger.warning(f"{len(skipped)} recordings are left out ({shown}); they are listed in {file}")


def _unusable(audio: str, min_seconds: float, max_seconds: float | None) -> str | None:
    if not Path(audio).is_file():
        return "not there"
    try:
        wave, rate = soundfile.read(audio, dtype="float32")
    except soundfile.LibsndfileError as error:
        return f"unreadable: {error}"
    seconds = len(wave) / rate
    if not len(wave):
        return "empty"
    if not np.isfinite(wave).all():
        return "not finite: NaN or infinite samples"
    if seconds < min_seconds:
        return f"too short: {seconds:.3f} s of at least {min_seconds:g} s"
    if max_seconds is not None and seconds > max_seconds:
        return f"too long: {seconds:.1f} s of at most {max_seconds:g} s"
    return None
