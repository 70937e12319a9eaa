"""What asr.yaml needs: where the recordings are, and the word error rate as SpeechVerse's own evaluation computes it."""

import os
from pathlib import Path

from speechverse.evaluation.corpus_metric import load_metric


HERE = Path(__file__).parent


def recordings(doc: dict) -> list[str]:
    """A document's recordings."""
    return [str(HERE / os.path.expandvars(doc["audio"]))]


def score(doc: dict, results: list[str]) -> dict:
    """What word_error_rate needs of a document."""
    return {"wer": (results[0], doc["text"])}


def word_error_rate(pairs: list[tuple[str, str]]) -> float:
    """Over the words of all documents together, 0 to 1 (and beyond)."""
    metric = load_metric("wer")
    predictions, references = map(list, zip(*pairs, strict=True))
    return float(metric.value(metric.statistics(predictions, references).sum(axis=0)))
