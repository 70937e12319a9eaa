"""Compares a curriculum with learning all tasks at once from the first step, as the paper argues for (section 2.3).

    python training/compare_curriculum.py CONFIG.yaml --seeds 0 1 2 [--key value ...]

CONFIG.yaml is a run's, with a `curriculum`. For every seed it trains by that, and once more with everything learning everything for
as many steps, both at a constant learning rate after the warm-up, and without the guard that skips explosions. Into `output_dir` go the log of each run, `SCHEDULE-SEED.json`, and `curriculum.png`: gradient norms and validation
losses of all of them. A comparison that was interrupted goes on with the runs that are missing.
"""

import argparse
import dataclasses
import json
import logging
from pathlib import Path

from matplotlib.figure import Figure

from speechverse.training.arguments import RunConfig, parse_run_config
from speechverse.training.curriculum import Stage
from speechverse.training.data.whole_files import write_whole
from speechverse.training.train import build_trainer


COLOURS = {"curriculum": "tab:blue", "all at once": "tab:orange"}


def run(config: RunConfig, seed: int, at_once: bool) -> list[dict]:
    """Trains once; gives the Trainer's log."""
    config.namespace.seed = seed
    # The guard would skip what is to be seen, and a schedule over another length would be another difference.
    config.namespace.gradient_guard_factor = 0.0
    config.namespace.lr_scheduler_type = "constant"
    if at_once:
        steps = sum(stage.steps for stage in config.stages)
        config = dataclasses.replace(config, stages=[Stage("all at once", steps=steps)])
    trainer = build_trainer(config)
    trainer.train()
    return trainer.state.log_history


def draw(logs: dict[str, list[list[dict]]]) -> Figure:
    """Gradient norm before clipping and mean validation loss over steps, a line for each run.

    Args:
        logs (`dict[str, list[list[dict]]]`): by schedule, the log of each seed.
    """
    figure = Figure(figsize=(7, 7), layout="constrained")
    axes = figure.subplots(2, 1, sharex=True)
    for panel, key, label in zip(
        axes, ("grad_norm", "eval_loss"), ("gradient norm", "validation loss (nats per token)"), strict=True
    ):
        for schedule, runs in logs.items():
            for number, log in enumerate(runs):
                points = [(entry["step"], entry[key]) for entry in log if key in entry]
                panel.plot(*zip(*points, strict=True), color=COLOURS[schedule], label=None if number else schedule)
        panel.set(ylabel=label, yscale="log")
        panel.grid(alpha=0.3)
    axes[0].legend()
    axes[1].set(xlabel="optimizer step")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="one pair of runs each (default: 0 1 2)"
    )
    options, rest = parser.parse_known_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        config = parse_run_config([*rest, "--save_strategy", "no"])
        if config.only_tasks is not None:
            raise ValueError("only_tasks leaves the curriculum out, which is what is compared.")
        if config.stages is None or any(stage.steps is None or stage.until for stage in config.stages):
            raise ValueError("The configuration needs a curriculum, its stages' lengths in steps and without until.")
        if not config.eval_data or config.namespace.eval_strategy == "no":
            raise ValueError("The validation losses are compared: give eval_data and eval_strategy: steps.")
        folder = Path(config.namespace.output_dir)
        logs = {schedule: [] for schedule in COLOURS}
        for seed in options.seeds:
            for schedule in COLOURS:
                file = folder / f"{schedule.replace(' ', '_')}-{seed}.json"
                if not file.is_file():
                    log = run(config, seed, at_once=schedule == "all at once")
                    write_whole(file, json.dumps(log, indent=2) + "\n")
                logs[schedule].append(json.loads(file.read_text(encoding="utf-8")))
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    draw(logs).savefig(folder / "curriculum.png", dpi=150)
    for schedule, runs in logs.items():
        last = [[entry["eval_loss"] for entry in log if "eval_loss" in entry][-1] for log in runs]
        largest = [max(entry["grad_norm"] for entry in log if "grad_norm" in entry) for log in runs]
        print(f"{schedule:12} last validation loss {_listed(last)}   largest gradient norm {_listed(largest)}")


def _listed(values: list[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


if __name__ == "__main__":
    main()
