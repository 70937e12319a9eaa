"""What a run was made of, and what became of it: `run.json`, beside the weights that it is about."""

import json
import logging
import math
import platform
import re
from importlib import metadata
from pathlib import Path

import torch
from transformers.trainer_pt_utils import get_model_param_count
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import cached_file

from ..modeling_speechverse.base_checkpoints import fingerprint
from ..version import __version__
from .data.inspection import available_cores
from .data.report import REPORT_NAME
from .data.whole_files import write_whole


logger = logging.getLogger(__name__)

RECORD_NAME = "run.json"
PACKAGES = ("torch", "transformers", "peft", "accelerate", "deepspeed", "datasets")
PART_COUNTS = ("samples", "kept", "hours", "dropped", "corpora")  # of the data report: what is worth keeping for ever
MEASURES = ("samples", "seconds", "tokens")


def describe_run(trainer, config: dict, stages: list[dict]) -> dict:
    """The record of a run that has ended.

    Args:
        trainer ([`SpeechVerseTrainer`]): its weights, and the report on its data, lie in its `output_dir`.
        config (`dict`): how the run was configured.
        stages (`list[dict]`): of the curriculum, in order: `name`, `first_step` (`None`: never reached), and whatever else
            is to be kept of them, such as why they ended.

    Returns:
        `dict` with, beside the arguments,

        - `fingerprint` (`str`): of the weights that all this is about;
        - `versions`, `hardware` (`dict`): see [`installed_versions`] and [`describe_hardware`];
        - `seed`, `data_seed` (`int`);
        - `steps` (`int`): optimizer steps;
        - `trainable_parameters` (`int`);
        - `train_runtime` (`float` or `None`): seconds since the run was started or resumed the last time;
        - `trained_on` (`dict`): samples, seconds and tokens of each task that were learned from, repetitions included, as
          far as they were logged;
        - `data` (`dict` or `None`): counts of the report on the data, and the licences of its corpora; under `inherited` those
          of what the adapter that it started from had learned from;
        - `log` (`list[dict]`): the Trainer's, since the run's very beginning.
    """
    args, state = trainer.args, trainer.state
    folder = Path(args.output_dir)
    runtimes = [entry["train_runtime"] for entry in state.log_history if "train_runtime" in entry]
    return {
        "config": config,
        "fingerprint": fingerprint(folder),
        "versions": installed_versions(),
        "hardware": describe_hardware(args),
        "seed": args.seed,
        "data_seed": args.seed if args.data_seed is None else args.data_seed,
        "steps": state.global_step,
        "trainable_parameters": get_model_param_count(trainer.model, trainable_only=True),
        "train_runtime": runtimes[-1] if runtimes else None,
        "stages": stages,
        "data": _read_data_counts(folder / REPORT_NAME),
        "trained_on": sum_by_task(state.log_history),
        "log": state.log_history,
    }


def write_run_record(record: dict, folder: str | Path) -> None:
    """Writes `run.json`, whole or not at all. What is not finite is `null` in it, since JSON has no other word for it."""
    content = json.dumps(_without_infinities(record), indent=2, ensure_ascii=False, default=str)
    write_whole(Path(folder) / RECORD_NAME, content + "\n")


def corpora_learned(checkpoint: str) -> dict[str, dict]:
    """Which corpora a checkpoint has learned from, and so has every model that starts from it.

    Args:
        checkpoint (`str`): a folder, or a repository of the Hub. One of a run's `checkpoint-*` is told of by the run's.

    Returns:
        name -> `title`, `licence`, `permissive` and `speech`, those that it has inherited among them; nothing where neither
        its `run.json` nor, beside a projector that was aligned, a report on its data tells.
    """
    if Path(checkpoint).name.startswith(f"{PREFIX_CHECKPOINT_DIR}-") and Path(checkpoint).is_dir():
        checkpoint = str(Path(checkpoint).resolve().parent)
    for name in (RECORD_NAME, REPORT_NAME):
        if file := cached_file(checkpoint, name, _raise_exceptions_for_missing_entries=False):
            found = json.loads(Path(file).read_text(encoding="utf-8"))
            data = found.get("data") if name == RECORD_NAME else found
            break
    else:
        data = None
    if not data:
        logger.warning(
            f"{checkpoint} does not say what it has learned from: the card will not name licences of its data."
        )
        return {}
    learned = {
        name
        for place, tasks in data["train"]["corpora"].items()
        if any(counts["kept"] for counts in tasks.values())
        for name in (place, place.rpartition("/")[0])  # a corpus, or one and its split
    }
    own = {name: facts for name, facts in data.get("licences", {}).items() if name in learned}
    return data.get("inherited", {}) | own


def installed_versions() -> dict[str, str]:
    """Versions of Python, SpeechVerse and those of the packages it builds on that are installed."""
    versions = {"python": platform.python_version(), "speechverse": __version__}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def describe_hardware(args) -> dict:
    """The machine of the first process, without its name.

    Args:
        args ([`TrainingArguments`]): say where the run was placed.

    Returns:
        `dict` with `device` (kind of accelerator, or `cpu`), `gpus` (`name` and `memory_gib` of those that the process
        sees, where it uses them), `world_size` (number of processes), `cpu` (name), `cores` (those it may use), `platform`.
    """
    gpus = []
    if args.device.type == "cuda":
        found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        gpus = [{"name": gpu.name, "memory_gib": round(gpu.total_memory / 2**30, 1)} for gpu in found]
    return {
        "device": args.device.type,
        "gpus": gpus,
        "world_size": args.world_size,
        "cpu": _cpu_name(),
        "cores": available_cores(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def sum_by_task(log_history: list[dict]) -> dict[str, dict[str, float]]:
    """Task -> its `samples`, `seconds` and `tokens` in the whole log, which holds them since the entry before."""
    sums: dict[str, dict[str, float]] = {}
    for entry in log_history:
        for key, value in entry.items():
            if match := re.fullmatch(rf"({'|'.join(MEASURES)})_(.+)", key):
                measure, task = match.groups()
                of_task = sums.setdefault(task, {})
                of_task[measure] = of_task.get(measure, 0) + value
    return sums


def _read_data_counts(report: Path) -> dict | None:
    """What the report on a run's data counts; which labels there were, and how long all was, it says itself."""
    if not report.is_file():
        return None
    found = json.loads(report.read_text(encoding="utf-8"))
    parts = {part: {name: found[part][name] for name in PART_COUNTS} for part in ("train", "eval") if part in found}
    facts = {name: found.get(name, {}) for name in ("licences", "inherited")}
    return {**parts, **facts, "report": report.name}


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _without_infinities(value):
    if isinstance(value, dict):
        return {name: _without_infinities(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_infinities(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
