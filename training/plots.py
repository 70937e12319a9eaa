"""Pictures of a run."""

from pathlib import Path

import matplotlib


matplotlib.use("Agg")  # no screen is needed
from matplotlib import pyplot  # noqa: E402


def draw_loss_curve(log_history: list[dict], file: str | Path) -> None:
    """Draws training and validation loss over optimizer steps.

    Args:
        log_history (`list[dict]`): the Trainer's `state.log_history`.
        file (`str` or `Path`): the PNG to write.
    """
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for key, label, style in (("loss", "training", "-"), ("eval_loss", "validation", "o-")):
        points = [(entry["step"], entry[key]) for entry in log_history if key in entry]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label)
    axes.set(xlabel="optimizer step", ylabel="loss (nats per token)", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
