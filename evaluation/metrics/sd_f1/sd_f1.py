"""SD-F1: `evaluate.load("evaluation/metrics/sd_f1")`, or `load_metric("sd_f1")`."""

from speechverse.evaluation.slot_matching import SlotMetric, label_distance


class SdF1(SlotMetric):
    """F1 of slot detection, 0 to 1: SLU-F1 of the labels alone, whatever their values, and so never below SLU-F1.

    A sample without slots that was given none does not count, and alone scores 1.
    """

    metric_name = "sd_f1"
    signature = "sd_f1|micro|labels-only"
    distances = (label_distance,)
