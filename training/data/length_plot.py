"""A picture of how long the recordings and the answers of each task are."""

import math
from collections import defaultdict
from pathlib import Path

import matplotlib

from .filters import CheckedSample


matplotlib.use("Agg")  # no screen is needed
from matplotlib import pyplot  # noqa: E402


AXES = {
    "seconds": "recording (s)",
    "audio_tokens": "recording (projected frames)",
    "label_tokens": "answer (tokens)",
}
NUM_BINS = 40


def draw_lengths(checked: list[CheckedSample], file: str | Path) -> None:
    """Draws a histogram for each task, of seconds, and of frames and tokens where they were counted.

    Args:
        checked (`list[CheckedSample]`): the samples that are used.
        file (`str` or `Path`): the PNG to write.
    """
    by_name = defaultdict(list)
    for one in checked:
        by_name[one.name].append(one)
    counted = [name for name in AXES if all(getattr(one, name) is not None for one in checked)]
    figure, grid = pyplot.subplots(
        max(1, len(by_name)),
        max(1, len(counted)),
        figsize=(4 * max(1, len(counted)), 0.8 + 1.8 * max(1, len(by_name))),
        sharex="col",
        squeeze=False,
        layout="constrained",
    )
    for column, name in enumerate(counted):
        longest = max((getattr(one, name) for one in checked), default=1)
        width = longest / NUM_BINS if name == "seconds" else math.ceil((longest + 1) / NUM_BINS)  # whole tokens a bin
        edges = [width * number for number in range(math.ceil(longest / width) + 2)]
        for row, (task, samples) in enumerate(sorted(by_name.items())):
            axes = grid[row][column]
            axes.hist([getattr(one, name) for one in samples], bins=edges)
            axes.grid(alpha=0.3)
            if column == 0:
                axes.set_ylabel(f"{task}\nsamples")
        grid[-1][column].set_xlabel(AXES[name])
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
