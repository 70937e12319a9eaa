"""Unweighted average recall: `evaluate.load("evaluation/metrics/uar")`, or `load_metric("uar")`."""

import numpy as np

from speechverse.evaluation.corpus_metric import CorpusMetric


class Uar(CorpusMetric):
    """Unweighted average recall, 0 to 1: the mean over classes of the share of that class's samples that was recognised.

    The classes are those that occur among the references, in a resample those that it drew; what is never right is
    no class. An answer that could not be read is wrong.
    """

    metric_name = "uar"
    answer_type = "label"
    in_place_of_none = None
    signature = "uar|classes:those-of-the-references|unread:wrong"

    def _count(self, predictions, references):
        """Columns: for each class in the order of their names, samples that were recognised; then for each, samples."""
        column = {label: index for index, label in enumerate(sorted(set(references)))}
        right, asked = np.zeros((2, len(references), len(column)))
        for row, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
            right[row, column[reference]] = prediction == reference
            asked[row, column[reference]] = 1
        return np.concatenate([right, asked], axis=1)

    def value(self, sums):
        right, asked = np.split(np.asarray(sums, dtype=np.float64), 2, axis=-1)
        occurs = asked > 0
        return (right / np.where(occurs, asked, 1)).sum(axis=-1) / occurs.sum(axis=-1)
