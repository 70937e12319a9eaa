"""Recordings that cannot be used are left out before training: counted, and listed with the reason."""

import json
import logging
from collections import Counter
from pathlib import Path

import soundfile

from .manifest import Sample


logger = logging.getLogger(__name__)


def drop_unusable(samples: list[Sample], min_seconds: float, max_seconds: float | None) -> tuple[list[Sample], list]:
    """Tells the samples whose recordings can be used from those whose cannot, by their headers alone.

    Args:
        samples (`list[Sample]`): the samples.
        min_seconds, max_seconds (`float`): shortest and longest recording that the encoder takes; `None`: no bound.

    Returns:
        the usable samples, and a list of `{"audio", "reason"}` of the others' recordings.

    Raises:
        ValueError: if no sample is left.
    """
    reasons = {audio: _unusable(audio, min_seconds, max_seconds) for audio in {sample.audio for sample in samples}}
    skipped = [{"audio": audio, "reason": reason} for audio, reason in sorted(reasons.items()) if reason]
    usable = [sample for sample in samples if not reasons[sample.audio]]
    if samples and not usable:
        raise ValueError(f"None of the {len(reasons)} recordings can be used; the first: {skipped[0]}.")
    return usable, skipped


def report_skipped(skipped: list[dict], folder: str | Path) -> None:
    """Counts what was left out, by reason, and lists it in `skipped.jsonl`."""
    if not skipped:
        return
    file = Path(folder) / "skipped.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in skipped), encoding="utf-8")
    counts = Counter(row["reason"].split(":")[0] for row in skipped)
    shown = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    logger.warning(f"{len(skipped)} recordings are left out ({shown}); they are listed in {file}")


def _unusable(audio: str, min_seconds: float, max_seconds: float | None) -> str | None:
    try:
        info = soundfile.info(audio)
    except soundfile.LibsndfileError as error:
        return f"unreadable: {error}"
    if info.frames == 0:
        return "empty"
    if info.duration < min_seconds:
        return f"too short: {info.duration:.3f} s of at least {min_seconds:g} s"
    if max_seconds is not None and info.duration > max_seconds:
        return f"too long: {info.duration:.1f} s of at most {max_seconds:g} s"
    return None
