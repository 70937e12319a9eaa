"""A run's pictures: what is drawn is what was logged, where it was logged, and can be read."""

import itertools
import math

import numpy as np
import pytest
from matplotlib.collections import PolyCollection, QuadMesh
from matplotlib.text import Text

from speechverse.training.plots import draw_losses, draw_training, save_plots


TASKS = ["asr", "st_de", "st_fr", "ic", "sf", "kwe", "kws", "er", "asc", "sc", "ac"]
NUM_LAYERS = 13
STAGES = [
    {"name": "projector on ASR", "first_step": 0},
    {"name": "LoRA joins, ASR", "first_step": 40},
    {"name": "all tasks", "first_step": 100},
    {"name": "never", "first_step": None},
]


def make_log(last_step=1000, every=10) -> list[dict]:
    """Like that of a run of three stages and eleven tasks, which skipped two steps."""
    log = []
    for step in range(every, last_step + 1, every):
        tasks = TASKS if step > 100 else TASKS[:1]
        entry = {"step": step, "loss": 1 + 5 / step, "grad_norm": 1 + 1 / step, "padding": 0.1, "learning_rate": 1e-3}
        entry |= {"learning_rate_projector": 1e-3, "learning_rate_lora": 0.0 if step <= 40 else 5e-4}
        entry |= {"skipped_steps": (step >= 50) + (step >= 500)}
        entry |= {f"layer_mix_{layer}": (layer + step) / 1000 for layer in range(NUM_LAYERS)}
        for index, task in enumerate(tasks):
            entry |= {f"loss_{task}": (index + 1) / step, f"samples_{task}": 4 if task == "asr" else 1}
        log.append(entry)
        if step % 100 == 0:
            losses = {f"eval_{task}_loss": (index + 2) / step for index, task in enumerate(tasks)}
            log.append({"step": step, "eval_loss": 2 + 5 / step} | losses)
    return log


def plain(log) -> list[dict]:
    """What the Trainer logs by itself."""
    return [
        {k: v for k, v in e.items() if k in {"step", "loss", "eval_loss", "grad_norm", "learning_rate"}} for e in log
    ]


def curves(axes) -> dict[str, list[tuple]]:
    """Label -> points of what is drawn over steps; the lines of stages have no label."""
    return {
        line.get_label(): [(int(x), float(y)) for x, y in line.get_xydata()]
        for line in axes.lines
        if not line.get_label().startswith("_") or line.get_transform() == axes.transData
    }


def logged(log, key) -> list[tuple]:
    return [(entry["step"], entry[key]) for entry in log if key in entry]


def stage_lines(axes) -> list[int]:
    return sorted(int(line.get_xdata()[0]) for line in axes.lines if line.get_linestyle() == "--")


def panels(figure) -> dict[str, object]:
    """By title, or else by what stands beside the vertical axis."""
    return {axes.get_title() or axes.get_ylabel(): axes for axes in figure.axes}


def texts(figure) -> list:
    """Names of stages, and the words of legends."""
    found = [text for axes in figure.axes for text in axes.texts if text.get_text()]
    return found + [text for axes in figure.axes if axes.get_legend() for text in axes.get_legend().get_texts()]


# Losses


def test_every_task_has_a_panel_of_its_own():
    log = make_log()
    shown = panels(draw_losses(log, STAGES))
    assert list(shown) == ["loss (nats per token)", *TASKS]
    assert curves(shown["loss (nats per token)"])["training"] == logged(log, "loss")
    assert curves(shown["loss (nats per token)"])["validation"] == logged(log, "eval_loss")
    for task in TASKS:
        drawn = curves(shown[task])
        assert drawn["training"] == logged(log, f"loss_{task}")
        assert drawn["validation"] == logged(log, f"eval_{task}_loss")
        assert shown[task].get_yscale() == "log" and shown[task].get_xlim() == (0, 1000)
    assert len({shown[task].get_ylim() for task in TASKS}) == 1  # so that tasks can be compared


def test_task_that_is_only_validated_has_a_panel_too():
    log = [{"step": 1, "loss_asr": 2.0}, {"step": 1, "eval_st_de_loss": 3.0}]
    shown = panels(draw_losses(log))
    assert curves(shown["asr"]).keys() == {"training"}
    assert curves(shown["st_de"]) == {"validation": [(1, 3.0)]}


def test_plain_run_has_one_panel_with_a_legend():
    (axes,) = draw_losses(plain(make_log())).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["training", "validation"]
    assert stage_lines(axes) == []


# Stages


@pytest.mark.parametrize("draw", [draw_losses, draw_training])
def test_stages_are_marked_in_every_panel_and_named_once(draw):
    figure = draw(make_log(), STAGES)
    over_steps = [axes for axes in figure.axes if axes.get_xlim() == (0, 1000)]
    assert len(over_steps) >= 5
    assert all(stage_lines(axes) == [0, 40, 100] for axes in over_steps)
    names = [text.get_text().strip() for axes in figure.axes for text in axes.texts]
    assert sorted(names) == ["LoRA joins, ASR", "all tasks", "projector on ASR"]
    for text in figure.axes[0].texts:
        assert text.xy[0] == {stage["name"]: stage["first_step"] for stage in STAGES}[text.get_text().strip()]


@pytest.mark.parametrize("draw", [draw_losses, draw_training])
def test_single_stage_needs_no_mark(draw):
    figure = draw(make_log(), [{"name": "all", "first_step": 0}, {"name": "never", "first_step": None}])
    assert not any(stage_lines(axes) or axes.texts for axes in figure.axes)


def test_stage_that_nothing_was_logged_of_is_within_the_picture():
    figure = draw_losses(make_log(), [*STAGES[:3], {"name": "just begun", "first_step": 1200}])
    assert figure.axes[0].get_xlim() == (0, 1200)


@pytest.mark.parametrize("draw", [draw_losses, draw_training])
def test_words_are_within_the_picture_and_apart(draw):
    """Also of stages of a hundredth of the run, and of one that begins near its end."""
    stages = [{"name": f"a stage with number {step}", "first_step": step} for step in (0, 10, 20, 970)]
    figure = draw(make_log(), stages)
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in texts(figure)]  # a stage's own would take in its line
    assert len(boxes) >= 4
    for box in boxes:
        assert 0 <= box.x0 and box.x1 <= figure.bbox.x1 and 0 <= box.y0 and box.y1 <= figure.bbox.y1
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)


# How it was trained


def test_learning_rates_are_those_of_the_groups():
    log = make_log()
    axes = panels(draw_training(log))["learning rate"]
    assert curves(axes) == {
        "projector": logged(log, "learning_rate_projector"),
        "lora": logged(log, "learning_rate_lora"),
    }
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["projector", "lora"]


def test_plain_run_shows_what_the_trainer_logs():
    log = plain(make_log())
    shown = panels(draw_training(log))
    assert list(shown) == ["learning rate", "gradient norm"]
    (points,) = curves(shown["learning rate"]).values()
    assert points == logged(log, "learning_rate") and shown["learning rate"].get_legend() is None
    (points,) = curves(shown["gradient norm"]).values()
    assert points == logged(log, "grad_norm") and shown["gradient norm"].get_yscale() == "log"


def test_skipped_steps_are_marked_where_they_were():
    axes = panels(draw_training(make_log()))["gradient norm"]
    marks = axes.lines[1]
    assert list(marks.get_xdata()) == [50, 500] and marks.get_label() == "steps skipped (2 in all)"
    no_marks = panels(draw_training([entry | {"skipped_steps": 0} for entry in make_log()]))["gradient norm"]
    assert len(no_marks.lines) == 1
    first = [{"step": 5, "grad_norm": math.inf, "skipped_steps": 3}]
    assert list(panels(draw_training(first))["gradient norm"].lines[1].get_xdata()) == [5]


def test_layer_mix_is_a_map_of_layers_and_steps():
    log = make_log()
    axes = panels(draw_training(log))["encoder layer"]
    (mesh,) = [item for item in axes.collections if isinstance(item, QuadMesh)]
    weights = [[value for _, value in logged(log, f"layer_mix_{layer}")] for layer in range(NUM_LAYERS)]
    np.testing.assert_allclose(mesh.get_array().reshape(NUM_LAYERS, -1), weights)
    edges = mesh.get_coordinates()
    assert list(edges[0, :3, 0]) == [0, 10, 20] and edges[0, -1, 0] == 1000
    assert list(edges[:3, 0, 1]) == [-0.5, 0.5, 1.5]


def test_padding_is_a_share():
    log = make_log()
    axes = panels(draw_training(log))["padding"]
    (points,) = curves(axes).values()
    assert points == logged(log, "padding") and axes.get_ylim()[0] == 0


def test_shares_of_samples_are_stacked():
    log = [
        {"step": 10, "samples_asr": 8},
        {"step": 20, "samples_asr": 3, "samples_er": 1},
        {"step": 20, "eval_loss": 1.0},
        {"step": 30, "samples_asr": 1, "samples_er": 1},
    ]
    axes = panels(draw_training(log))["samples by task"]
    areas = {area.get_label(): area for area in axes.collections if isinstance(area, PolyCollection)}
    assert list(areas) == ["asr", "er"] == [text.get_text() for text in axes.get_legend().get_texts()]
    for step, share in ((5, 1.0), (15, 0.75), (25, 0.5)):
        (asr,), (er,) = (area.get_paths() for area in areas.values())
        assert asr.contains_point((step, share - 0.01)) and not asr.contains_point((step, share + 0.01))
        assert er.contains_point((step, share + 0.01)) == (share < 1)


# Whatever was logged


def test_names_are_no_formulas(tmp_path):
    log = [{"step": step, r"loss_$\no$": 1.0, r"samples_$\no$": 1} for step in (1, 2)]
    save_plots(log, [{"name": r"$\no$", "first_step": step} for step in (0, 1)], tmp_path)
    assert (tmp_path / "training.png").is_file()


@pytest.mark.parametrize(
    "log",
    [
        [],
        [{"step": 3, "train_runtime": 1.0, "train_loss": 2.0}],
        make_log(10),
        [{"step": 1, "loss": math.nan, "grad_norm": math.inf, "learning_rate": 0.0, "samples_asr": 0}],
    ],
    ids=["nothing", "the end alone", "one entry", "not finite"],
)
@pytest.mark.parametrize("stages", [[], STAGES])
def test_short_and_broken_runs_are_drawn(log, stages, tmp_path):
    save_plots(log, stages, tmp_path)
    for name in ("loss.png", "training.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 2
