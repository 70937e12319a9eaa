"""SLU-F1: `evaluate.load("evaluation/metrics/slu_f1")`, or `load_metric("slu_f1")`."""

from speechverse.evaluation.slot_matching import SlotMetric, character_distance, word_distance


class SluF1(SlotMetric):
    """SLURP's F1 of slots, 0 to 1, which forgives part of a value that was not heard right (Bastianelli et al., EMNLP 2020).

    Each predicted slot in turn takes, of the reference slots of its label that are left, the one whose value is nearest. That is
    a true positive, and the distance is added to the false positives and to the false negatives; a slot that finds none is a false
    positive, a reference that is left a false negative. This is done once with the word error rate of the value for a distance
    and once with the share of its characters that are edited (by the longer value's); the counts of both are added, then F1
    is taken of all samples' counts.

    Values are compared in lower case, with one space between words. A sample without slots that was given none does not count,
    and alone scores 1.
    """

    metric_name = "slu_f1"
    signature = "slu_f1|micro|distances:word-error-rate+normalised-character-edits|lower-case"
    distances = (word_distance, character_distance)
