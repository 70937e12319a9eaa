"""F1 of keywords: `evaluate.load("evaluation/metrics/keyword_f1")`, or `load_metric("keyword_f1")`."""

import numpy as np

from speechverse.evaluation.corpus_metric import CorpusMetric


class KeywordF1(CorpusMetric):
    """Macro F1 of keywords, 0 to 1: the mean over samples of the F1 between the two sets of keywords.

    Keywords are compared in lower case, with one space between words, each once. A sample without keywords that was given none
    scores 1; one side alone without any scores 0.
    """

    metric_name = "keyword_f1"
    answer_type = "keywords"
    in_place_of_none = ()
    signature = "keyword_f1|mean-over-samples|lower-case|each-once|both-empty:1"

    def _count(self, predictions, references):
        """Columns: F1, samples."""
        return [
            [set_f1(_keywords(prediction), _keywords(reference)), 1]
            for prediction, reference in zip(predictions, references, strict=True)
        ]

    def value(self, sums):
        f1, samples = np.moveaxis(np.asarray(sums, dtype=np.float64), -1, 0)
        return f1 / samples


def set_f1(found: set, wanted: set) -> float:
    """Twice what two sets have in common by how many both have; 1 of two empty ones."""
    return 2 * len(found & wanted) / (len(found) + len(wanted)) if found or wanted else 1.0


def _keywords(answer) -> set[str]:
    return {" ".join(keyword.lower().split()) for keyword in answer} - {""}
