"""Pictures of a run: what was lost, and how it was trained.

Everything is drawn from the Trainer's log, which is whole in a resumed run too. What a run did not log is not drawn.
"""

import io
import math
import re
from pathlib import Path

from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, MaxNLocator

from .data.whole_files import write_whole


LOSS_PICTURE = "loss.png"
TRAINING_PICTURE = "training.png"

# Inches, and pixels per inch. Narrow and upright: a phone shows all of it, and print has it within a page's margins.
WIDTH = 5.0
DPI = 200
TASK_COLUMNS = 2
PANEL_HEIGHT = 1.25
FLAG_POINTS = 11  # of a row of stages' names
# Names of tasks and stages are anyone's: a $ in them begins no formula, which could not be drawn.
STYLE = {"font.size": 8, "legend.fontsize": "small", "axes.linewidth": 0.6, "text.parse_math": False}

# Blue and orange differ for colour-blind eyes; on grey paper validation is told by its dots.
TRAINING = {"color": "tab:blue", "linewidth": 1.0}
VALIDATION = {"color": "tab:orange", "linewidth": 1.0, "marker": "o", "markersize": 3}
STAGE_LINE = {"color": "black", "linestyle": "--", "linewidth": 0.8}
HALO = [withStroke(linewidth=2, foreground="white", alpha=0.6)]  # or they could not be seen on dark areas
# Dark ones first: neighbours in a stack are then easily told apart.
TASK_COLOURS = [colormaps["tab20"](index) for index in [*range(0, 20, 2), *range(1, 20, 2)]]


@rc_context(STYLE)  # here too, since an axis makes its ticks as late as when it is drawn
def save_plots(log_history: list[dict], stages: list[dict], folder: str | Path) -> None:
    """Writes `loss.png` and `training.png`.

    Args:
        log_history (`list[dict]`): the Trainer's `state.log_history`.
        stages (`list[dict]`): of the curriculum, in order, with `name` and `first_step`; see [`draw_losses`].
        folder (`str` or `Path`): gets the pictures.
    """
    for name, draw in ((LOSS_PICTURE, draw_losses), (TRAINING_PICTURE, draw_training)):
        image = io.BytesIO()
        draw(log_history, stages).savefig(image, format="png", dpi=DPI)
        write_whole(Path(folder) / name, image.getvalue())


@rc_context(STYLE)
def draw_losses(log_history: list[dict], stages: list[dict] = ()) -> Figure:
    """Draws training and validation loss over optimizer steps: of all tasks together, and below of each by itself.

    Args:
        log_history (`list[dict]`): entries with `step` and any of `loss`, `loss_<task>`, `eval_loss` and
            `eval_<task>_loss`, in nats per token.
        stages (`list[dict]`, *optional*): `name` and `first_step` (`None`: never reached) of each; where there are
            several, lines mark where they begin.
    """
    tasks = _named(log_history, r"loss_(.+)") | _named(log_history, r"eval_(.+)_loss")
    rows = math.ceil(len(tasks) / TASK_COLUMNS)
    figure = _new_figure((2 + rows) * PANEL_HEIGHT)
    grid = figure.add_gridspec(1 + rows, TASK_COLUMNS, height_ratios=[2] + [1] * rows)
    top = figure.add_subplot(grid[0, :])
    _draw_loss(top, log_history, "loss", "eval_loss")
    _finish(top, log_history, stages, named=True)
    top.set(xlabel="optimizer step", ylabel="loss (nats per token)")
    if top.get_legend_handles_labels()[0]:
        top.legend(loc="upper right", title="all tasks" if tasks else None)
    panel = None
    for index, task in enumerate(tasks):
        row, column = divmod(index, TASK_COLUMNS)
        panel = figure.add_subplot(grid[1 + row, column], sharey=panel)
        _draw_loss(panel, log_history, f"loss_{task}", f"eval_{task}_loss")
        _finish(panel, log_history, stages)
        panel.set_title(task, fontsize="medium")
        panel.tick_params(labelleft=column == 0, labelbottom=index + TASK_COLUMNS >= len(tasks))
    return figure


@rc_context(STYLE)
def draw_training(log_history: list[dict], stages: list[dict] = ()) -> Figure:
    """Draws how a run was trained, over optimizer steps: a panel for each thing that it logged.

    Args:
        log_history (`list[dict]`): entries with `step` and any of `learning_rate` or `learning_rate_<group>`,
            `grad_norm` and `skipped_steps` (so far), `layer_mix_<layer>`, `padding` (0 to 1), and `samples_<task>`
            (since the entry before).
        stages (`list[dict]`, *optional*): see [`draw_losses`].
    """
    panels = [_draw_learning_rates]
    if _points(log_history, "grad_norm"):
        panels.append(_draw_gradient_norms)
    if _named(log_history, r"layer_mix_(\d+)"):
        panels.append(_draw_layer_mix)
    if _points(log_history, "padding"):
        panels.append(_draw_padding)
    if _named(log_history, r"samples_(.+)"):
        panels.append(_draw_task_shares)
    figure = _new_figure(0.6 + 1.3 * PANEL_HEIGHT * len(panels))
    grid = figure.subplots(len(panels), squeeze=False)[:, 0]
    for axes, draw in zip(grid, panels, strict=True):
        draw(axes, log_history)
        _finish(axes, log_history, stages, named=axes is grid[0])
        axes.tick_params(labelbottom=axes is grid[-1])
    grid[-1].set_xlabel("optimizer step")
    return figure


def _draw_loss(axes: Axes, log_history: list[dict], training: str, validation: str) -> None:
    for key, label, style in ((training, "training", TRAINING), (validation, "validation", VALIDATION)):
        if points := _points(log_history, key):
            axes.plot(*zip(*points, strict=True), label=label, **style)
    _scale_by_decades(axes)


def _draw_learning_rates(axes: Axes, log_history: list[dict]) -> None:
    groups = {f"learning_rate_{group}": group for group in _named(log_history, r"learning_rate_(.+)")}
    for key, label in (groups or {"learning_rate": None}).items():
        if points := _points(log_history, key):
            axes.plot(*zip(*points, strict=True), label=label)
    axes.set(ylabel="learning rate", ylim=(0, None))
    axes.yaxis.set_major_formatter("{x:g}")
    if groups:
        axes.legend()


def _draw_gradient_norms(axes: Axes, log_history: list[dict]) -> None:
    axes.plot(*zip(*_points(log_history, "grad_norm"), strict=True), **TRAINING)
    axes.set_ylabel("gradient norm")
    _scale_by_decades(axes)
    skipped = _points(log_history, "skipped_steps")
    counts = [0] + [count for _, count in skipped]
    steps = [step for (step, count), before in zip(skipped, counts, strict=False) if count > before]
    if steps:  # at the edge, since a skipped step has no finite norm
        marks = {"color": "tab:red", "marker": "^", "linestyle": "none", "clip_on": False}
        label = f"steps skipped ({counts[-1]} in all)"
        axes.plot(steps, [0] * len(steps), transform=axes.get_xaxis_transform(), label=label, **marks)
        axes.legend(loc="upper right")


def _draw_layer_mix(axes: Axes, log_history: list[dict]) -> None:
    layers = sorted(map(int, _named(log_history, r"layer_mix_(\d+)")))
    entries = [entry for entry in log_history if f"layer_mix_{layers[0]}" in entry]
    weights = [[entry[f"layer_mix_{layer}"] for entry in entries] for layer in layers]
    layer_edges = [layer - 0.5 for layer in layers] + [layers[-1] + 0.5]
    mesh = axes.pcolormesh(_edges(entries), layer_edges, weights, cmap="viridis", vmin=0)
    axes.set_ylabel("encoder layer")
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.figure.colorbar(mesh, ax=axes, label="weight in the mix", location="bottom", aspect=50, pad=0.02)


def _draw_padding(axes: Axes, log_history: list[dict]) -> None:
    axes.plot(*zip(*_points(log_history, "padding"), strict=True), **TRAINING)
    axes.set(ylabel="padding", ylim=(0, None))
    axes.yaxis.set_major_formatter("{x:.0%}")


def _draw_task_shares(axes: Axes, log_history: list[dict]) -> None:
    tasks = list(_named(log_history, r"samples_(.+)"))
    entries = [entry for entry in log_history if any(f"samples_{task}" in entry for task in tasks)]
    counts = [[entry.get(f"samples_{task}", 0) for task in tasks] for entry in entries]
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    by_task = zip(*(shares[:1] + shares), strict=True)  # one more, since an entry is drawn between two steps
    colours = [TASK_COLOURS[index % len(TASK_COLOURS)] for index in range(len(tasks))]
    axes.stackplot(_edges(entries), *by_task, labels=tasks, colors=colours, step="pre", linewidth=0)
    axes.set(ylabel="samples by task", ylim=(0, 1))
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.3), ncols=5, columnspacing=1, handlelength=1)


def _scale_by_decades(axes: Axes) -> None:
    """A logarithmic axis whose ticks are plain numbers, also where it spans less than a decade."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=6))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")


def _finish(axes: Axes, log_history: list[dict], stages: list[dict], named: bool = False) -> None:
    """Makes the panel's steps those of the run, and marks where its stages begin."""
    reached = {stage["first_step"]: stage["name"] for stage in stages if stage["first_step"] is not None}
    last_step = max([entry["step"] for entry in log_history] + list(reached), default=0)
    axes.set_xlim(0, last_step or None)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    if len(reached) < 2:
        return
    for row, (step, name) in enumerate(reversed(reached.items())):
        axes.axvline(step, path_effects=HALO, **STAGE_LINE)
        if named:
            _fly_flag(axes, step, name, row, "right" if step > 0.7 * last_step else "left")


def _fly_flag(axes: Axes, step: int, name: str, row: int, side: str) -> None:
    """Puts a name above the panel, in a row of its own: stages may be too short for names side by side."""
    pole = {"arrowstyle": "-", "relpos": (0 if side == "left" else 1, 1), "patchA": None, "shrinkA": 0, "shrinkB": 0}
    axes.annotate(
        f" {name} ",
        xy=(step, 1),
        xycoords=axes.get_xaxis_transform(),
        xytext=(0, 3 + FLAG_POINTS * row),
        textcoords="offset points",
        ha=side,
        arrowprops=pole | STAGE_LINE,
    )


def _new_figure(height: float) -> Figure:
    """Without pyplot, which would choose a backend for whoever imports this, and keep every figure."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _points(log_history: list[dict], key: str) -> list[tuple[int, float]]:
    """Where and what was logged of a key."""
    return [(entry["step"], entry[key]) for entry in log_history if key in entry]


def _named(log_history: list[dict], pattern: str) -> dict[str, None]:
    """What a pattern's group stands for in the log's keys, in the order in which it appears."""
    matches = (re.fullmatch(pattern, key) for entry in log_history for key in entry)
    return {match[1]: None for match in matches if match}


def _edges(entries: list[dict]) -> list[int]:
    """Steps between which each entry holds: an entry is about the steps since the one before."""
    steps = [entry["step"] for entry in entries]
    return [max(0, 2 * steps[0] - steps[1]) if len(steps) > 1 else 0, *steps]
