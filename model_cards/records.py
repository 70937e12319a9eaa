"""What of a run's records is published: figures and settings, by name. Nothing goes out because nobody thought of it."""

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


def public_results(results: dict) -> dict:
    """Of `results.json`: the figures and how they were made; of recordings that could not be read, how many and why.

    Raises:
        KeyError: if a field is missing.
    """
    return {
        "results": [
            {
                "instruction": row["instruction"],
                "samples": row["samples"],
                "skipped": _count_reasons(row["skipped"]),
                "accuracy": row["accuracy"],
                "uar": row.get("uar"),  # lists of keywords or slots are no classes
                "source": _public_source(row["source"]),
            }
            for row in results["results"]
        ],
        "command": [shorten_path(word) for word in results["command"]],
        **{name: results[name] for name in ("fingerprint", "date", "hardware", "versions")},
        **_earlier_fingerprint(results),
    }


def public_run(run: dict) -> dict:
    """Of `run.json`: the hyper-parameters, which data, and the log.

    Raises:
        KeyError: if a field is missing.
    """
    config = {name: run["config"][name] for name in HYPER_PARAMETERS}
    config |= {name: [_public_source(source) for source in run["config"][name]] for name in DATA}
    names = ("fingerprint", "seed", "steps", "trainable_parameters", "torch", "log")
    return {"config": config, **{name: run[name] for name in names}, **_earlier_fingerprint(run)}


def shorten_path(word: str) -> str:
    """An absolute path's last part, also behind `--option=`; any other word as it is."""
    option, equals, value = word.rpartition("=")
    value = value.removeprefix("file://")
    if value.startswith(("~", "..")):
        return option + equals + PurePosixPath(value).name
    for flavour in (PurePosixPath, PureWindowsPath):
        if flavour(value).is_absolute():
            return option + equals + flavour(value).name
    return word


def _count_reasons(skipped: list[dict] | dict[str, int]) -> dict[str, int]:
    """How many recordings were left out for each reason; a record that was published before says so itself."""
    return skipped if isinstance(skipped, dict) else dict(Counter(row["reason"].split(":")[0] for row in skipped))


def _earlier_fingerprint(record: dict) -> dict:
    return {name: record[name] for name in ("recorded_for",) if name in record}


def _public_source(source: dict) -> dict:
    """Where data came from, without this machine's paths."""
    return source | {name: shorten_path(source[name]) for name in ("manifest", "corpus") if source.get(name)}
