"""Slots of an answer, matched with those that would have been right, as SLURP's metric does (Bastianelli et al., EMNLP 2020)."""

from abc import abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
from rapidfuzz.distance import Levenshtein

from .corpus_metric import CorpusMetric


def word_distance(truth: str, value: str) -> float:
    """Word error rate of a value: 0 or more, and above 1 where it has many more words than the truth."""
    truth_words, words = truth.split(), value.split()
    return Levenshtein.distance(truth_words, words) / max(1, len(truth_words))


def character_distance(truth: str, value: str) -> float:
    """Edits between two values as a share of the longer one's characters, 0 to 1."""
    return Levenshtein.normalized_distance(truth, value)


def label_distance(truth: str, value: str) -> float:
    """None, whatever the values are: labels alone count."""
    return 0.0


def match_slots(
    predicted: Sequence[dict], references: Sequence[dict], distance: Callable[[str, str], float]
) -> tuple[float, float, float]:
    """True positives, false positives and false negatives of one sample.

    Each predicted slot in turn takes, of the reference slots of its label that are left, the one whose value is nearest, the
    first of several alike. That is a true positive, and the distance is added to the false positives and to the false negatives.
    A slot that finds none is a false positive, a reference that is left a false negative.
    """
    left = [(slot["label"], _surface(slot["value"])) for slot in references]
    hits, wrong, missed = 0, 0.0, 0.0
    for slot in predicted:
        value = _surface(slot["value"])
        distances = {
            index: distance(truth, value) for index, (label, truth) in enumerate(left) if label == slot["label"]
        }
        if not distances:
            wrong += 1
            continue
        nearest = min(distances, key=distances.get)
        hits += 1
        wrong += distances[nearest]
        missed += distances[nearest]
        del left[nearest]
    return hits, wrong, missed + len(left)


class SlotMetric(CorpusMetric):
    """Micro F1 of slots. A sample without slots that was given none does not count, and alone scores 1."""

    answer_type = "slots"
    in_place_of_none = ()
    paper = "Bastianelli et al., SLURP: A Spoken Language Understanding Resource Package, EMNLP 2020, arXiv 2011.13205"

    @property
    @abstractmethod
    def distances(self) -> tuple[Callable[[str, str], float], ...]:
        """Slots are matched once by each, and what is counted is added up."""

    def _count(self, predictions, references):
        """Columns: true positives, false positives, false negatives."""
        return [
            np.sum([match_slots(predicted, truth, distance) for distance in self.distances], axis=0)
            for predicted, truth in zip(predictions, references, strict=True)
        ]

    def value(self, sums):
        hits, wrong, missed = np.moveaxis(np.asarray(sums, dtype=np.float64), -1, 0)
        total = 2 * hits + wrong + missed
        return np.where(total > 0, 2 * hits / np.where(total > 0, total, 1), 1.0)


def _surface(value: str) -> str:
    """A value as it is compared: in lower case, with one space between words."""
    return " ".join(value.lower().split())
