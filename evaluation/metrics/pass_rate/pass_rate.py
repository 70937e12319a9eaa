"""Pass rate: `evaluate.load("evaluation/metrics/pass_rate")`, or `load_metric("pass_rate")`."""

from speechverse.evaluation.metrics.accuracy import accuracy


class PassRate(accuracy.Accuracy):  # whose class `evaluate.load` would take, were it imported by name
    """Share of free answers that meet all of a row's criteria, 0 to 1. Predictions are `pass` or `fail`, references `pass`."""

    metric_name = "pass_rate"
    signature = "pass_rate|criteria:all"
