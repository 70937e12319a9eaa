"""What of a run's records is published: figures and settings, by name. Nothing goes out because nobody thought of it."""

import re
from collections import Counter
from pathlib import PurePosixPath, PureWindowsPath


HYPER_PARAMETERS = (
    "layer_mix",
    "lora_rank",
    "lora_alpha",
    "lora_dropout",
    "lora_target_modules",
    "projector_kernel_sizes",
    "projector_strides",
    "freeze_audio_tower",
    "learning_rate",
    "lora_learning_rate",
    "audio_tower_learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "optim",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "max_steps",
    "bf16",
    "fp16",
    "gradient_checkpointing",
)
DATA = ("train_data", "eval_data")
CURRICULUM = (
    "name",
    "tasks",
    "trains",
    "steps",
    "epochs",
    "until",
    "learning_rate",
    "warmup_steps",
    "lr_scheduler_type",
    "weights",
)
MIXTURE = ("temperature", "joint_share", "adaptive")
VERSIONS = ("python", "speechverse", "torch", "transformers", "peft", "accelerate", "deepspeed", "datasets")
HARDWARE = ("device", "gpus", "world_size", "cpu", "cores", "platform")
GPU = ("name", "memory_gib")
STAGE = ("name", "tasks", "trains", "first_step", "steps", "end")
PART = ("samples", "kept", "hours")  # without labels and reasons, which may quote the data
LICENCE = ("title", "licence", "permissive", "speech")
MEASURES = ("samples", "seconds", "tokens")
RESULTS = (
    "suite",
    "title",
    "source",
    "date",
    "command",
    "seed",
    "hardware",
    "versions",
    "seconds",
    "batch_size",
    "processes",
    "fingerprint",
)
SYSTEM = ("kind", "name", "model", "fingerprint")
ROW = (  # without classes, which may be names
    "row",
    "name",
    "corpus",
    "split",
    "view",
    "task",
    "prompts",
    "prompt",
    "decoding",
    "describe",
    "metric",
    "scored",
    "language",
    "higher_is_better",
    "scale",
    "signature",
    "value",
    "low",
    "high",
    "resampled",
    "clusters",
    "samples",
    "unreadable",
    "truncated",
    "paper",
    "paper_set",
)


def public_results(results: dict) -> dict:
    """Of a suite's `results.json`: the figures and how they were made; of recordings that were left out, how many and why.

    Raises:
        KeyError: if a field is missing.
    """
    return {
        **{name: _shorten_all(results[name]) for name in RESULTS},
        "system": _shorten_all(_select(results["system"], SYSTEM)),
        "results": [
            # What was asked stays as it is: /th/ is no path. A joint row names its tasks.
            {**_shorten_all({name: row[name] for name in ROW}), "instruction": row["instruction"]}
            | {"skipped": _count_kinds(row["skipped"])}
            for row in results["results"]
        ],
        "not_asked": [_shorten_all(_select(row, ("row", "reason"))) for row in results["not_asked"]],
        **_earlier_fingerprint(results),
    }


def public_run(run: dict) -> dict:
    """Of `run.json`: the hyper-parameters, which data and how much of them, the machine, the stages, and the log.

    Raises:
        KeyError: if a field is missing that every version wrote.
    """
    config = {name: run["config"][name] for name in HYPER_PARAMETERS}
    config |= {name: [_public_source(source) for source in run["config"][name]] for name in DATA}
    if stages := run["config"].get("curriculum"):
        config["curriculum"] = [_shorten_all(_select(stage, CURRICULUM)) for stage in stages]
    if only_tasks := run["config"].get("only_tasks"):
        config["only_tasks"] = only_tasks
    if adapter := run["config"].get("adapter"):
        config["adapter"] = shorten_path(adapter)
    if mixture := run["config"].get("mixture"):
        config["mixture"] = _select(mixture, MIXTURE)
    names = ("fingerprint", "seed", "steps", "trainable_parameters")
    return {
        "config": config,
        **{name: run[name] for name in names},
        **_select(run, ("data_seed", "train_runtime")),
        **{name: make_public(run[name]) for name, make_public in PARTS_OF_RUN.items() if run.get(name)},
        "log": [_public_log_entry(entry) for entry in run["log"]],
        **_earlier_fingerprint(run),
    }


def shorten_path(word: str) -> str:
    """An absolute path's last part, also behind `--option=`; any other word as it is."""
    option, equals, value = word.rpartition("=")
    value = value.removeprefix("file://")
    if value.startswith(("~", "..")):
        return option + equals + PurePosixPath(value).name
    for flavour in (PurePosixPath, PureWindowsPath):
        if flavour(value).is_absolute():
            return option + equals + (flavour(value).name or value)
    return word


def shorten_paths(text: str) -> str:
    """A text of which every absolute path is but its last part, be it the whole text or a word of it."""
    whole = shorten_path(text)
    return re.sub(r"[^\s()\[\]{}<>\"'`,;]+", lambda word: shorten_path(word[0]), text) if whole == text else whole


def _count_kinds(skipped: dict[str, int]) -> dict[str, int]:
    """Counts by the kind of a reason, which stands before its colon; what follows may name a recording."""
    counts = Counter()
    for reason, count in skipped.items():
        counts[shorten_paths(reason.split(":")[0])] += count
    return dict(counts)


def _earlier_fingerprint(record: dict) -> dict:
    return {name: record[name] for name in ("recorded_for",) if name in record}


def _public_source(source: dict) -> dict:
    """Where data came from, without this machine's paths. What was asked and answered stays as it is: /th/ is no path."""
    return {
        name: value if name in ("instruction", "target") else _shorten_all(value) for name, value in source.items()
    }


def _shorten_all(value):
    if isinstance(value, dict):
        return {name: _shorten_all(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_shorten_all(item) for item in value]
    return shorten_paths(value) if isinstance(value, str) else value


def _public_hardware(hardware: dict) -> dict:
    return _select(hardware, HARDWARE) | {"gpus": [_select(gpu, GPU) for gpu in hardware["gpus"]]}


def _public_data(data: dict) -> dict:
    """Figures of each part, and of each task of a corpus in it; and the licences of its corpora and of those inherited."""
    parts = {part: _public_part(data[part]) for part in ("train", "eval") if part in data}
    return {**parts, **{name: _public_licences(data[name]) for name in ("licences", "inherited") if name in data}}


def _public_licences(corpora: dict[str, dict]) -> dict[str, dict]:
    return {shorten_path(id): _shorten_all(_select(facts, LICENCE)) for id, facts in corpora.items()}


def _public_part(counts: dict) -> dict:
    corpora = {
        shorten_path(place): {task: _select(facts, PART) for task, facts in tasks.items()}
        for place, tasks in counts["corpora"].items()
    }
    return {**_select(counts, PART), "corpora": corpora}


def _public_log_entry(entry: dict) -> dict:
    """The figures of an entry; one that was not finite is `None`."""
    return {name: value for name, value in entry.items() if value is None or isinstance(value, int | float)}


def _select(record: dict, names: tuple[str, ...]) -> dict:
    return {name: record[name] for name in names if name in record}


PARTS_OF_RUN = {  # what later versions came to write, and what is published of it
    "versions": lambda versions: _select(versions, VERSIONS),
    "hardware": _public_hardware,
    "stages": lambda stages: [_shorten_all(_select(stage, STAGE)) for stage in stages],
    "data": _public_data,
    "trained_on": lambda tasks: {task: _select(sums, MEASURES) for task, sums in tasks.items()},
}
