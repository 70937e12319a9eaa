"""Accuracy: `evaluate.load("evaluation/metrics/accuracy")`, or `load_metric("accuracy")`."""

import numpy as np

from speechverse.evaluation.corpus_metric import CorpusMetric


class Accuracy(CorpusMetric):
    """Share of answers that are exactly what would have been right, 0 to 1; one that could not be read is wrong."""

    metric_name = "accuracy"
    answer_type = "label"
    in_place_of_none = None
    signature = "accuracy|exact-match|unread:wrong"

    def _count(self, predictions, references):
        """Columns: right answers, answers."""
        return [[prediction == reference, 1] for prediction, reference in zip(predictions, references, strict=True)]

    def value(self, sums):
        right, asked = np.moveaxis(np.asarray(sums, dtype=np.float64), -1, 0)
        return right / asked
