"""What came out: every row scored, with its interval, and how it was measured."""

import contextlib
import datetime
import os
import platform
import sys
from collections import Counter
from importlib.metadata import PackageNotFoundError, version

import torch

from ..processing.tasks_speechverse import TaskBank
from .asking import parse_reference
from .corpus_metric import CorpusMetric
from .intervals import bootstrap
from .suite import LoadedRow


RESULTS_NAME = "results.json"
PACKAGES = ("speechverse", "transformers", "peft", "torch", "jiwer", "sacrebleu")


def check_metrics(rows: list[LoadedRow], bank: TaskBank) -> None:
    """Looks before anything is asked whether every row can be scored by its metrics.

    Raises:
        ImportError: if a package that a metric needs is not installed.
        ValueError: if a metric is for answers of another kind than the row's.
    """
    for row in rows:
        if row.row.passes is not None:
            continue
        references = [parse_reference(sample, bank)[0] for sample in row.samples]
        for task, name in row.scored:
            try:
                row.row.load_metric(name).check_references([_part(reference, task) for reference in references])
            except ValueError as error:
                raise ValueError(f"row {row.row.id}: {error}") from error


def score_row(row: LoadedRow, lines: list[dict], bank: TaskBank, seed: int) -> list[dict]:
    """A row's entries of `results.json`, one for each thing that is scored; each line gets its own `scores`.

    Args:
        row ([`LoadedRow`]): the row.
        lines (`list[dict]`): its samples' lines, of all its samples.
        bank ([`TaskBank`]): the tasks.
        seed (`int`): of the bootstrap.
    """
    sample, entries = row.samples[0], []
    for line in lines:
        line["scores"] = {}
    for task, name in row.scored:
        metric = row.row.load_metric(name)
        statistics = metric.statistics(
            [_part(line["answer"], task) for line in lines], [_part(line["reference"], task) for line in lines]
        )
        interval = bootstrap(metric, statistics, [line["speaker"] for line in lines], seed=seed)
        label = name if task is None else f"{task}/{name}"
        for line, score in zip(lines, metric.value(statistics).tolist(), strict=True):
            line["scores"][label] = score
        entries.append(
            {
                "row": row.row.id,
                "name": row.row.name or row.row.id,
                "corpus": sample.corpus or row.row.source.name,
                "split": sample.split,
                "view": sample.view,
                "task": sample.task,
                "prompts": row.row.data.get("prompts", "trained"),
                "prompt": row.row.prompt,
                "decoding": _decoding(row, bank),
                "describe": row.row.describe,
                "scored": task or sample.task,
                "scored_name": _task_name(task or sample.task, bank),
                "language": row.row.language,
                **_facts(metric),
                "value": interval.value,
                "low": interval.low,
                "high": interval.high,
                "resampled": interval.resampled,
                "clusters": interval.clusters,
                "samples": len(lines),
                "unreadable": sum(_part(line["answer"], task) is None for line in lines),
                "truncated": sum(line["truncated"] for line in lines),
                "skipped": dict(Counter(one["reason"].split(":")[0] for one in row.skipped)),
                "instruction": row.instruction(sample),
                "classes": _classes(sample, task, metric, bank),
                "paper": row.row.paper_figures(task, name),
                "paper_set": row.row.paper_set,
                "baseline": row.row.baseline,
            }
        )
    return entries


def _part(answer, task: str | None):
    """A task's part of a joint answer, or the whole of any other."""
    return answer if task is None else (answer or {}).get(task)


def _facts(metric: CorpusMetric) -> dict:
    return {
        "metric": metric.metric_name,
        "higher_is_better": metric.higher_is_better,
        "scale": metric.scale,
        "signature": metric.signature,
    }


def _task_name(task: str | None, bank: TaskBank) -> str | None:
    return bank[task].name if task in bank else None


def _decoding(row: LoadedRow, bank: TaskBank) -> str:
    """How answers were decoded: a task without a form has none to be held to."""
    sample = row.samples[0]
    if row.is_in_words(sample):
        return "free"
    task = bank.find(list(sample.tasks) if sample.tasks[1:] else sample.task)
    return row.row.decoding if task.has_form(sample.labels or None) else "free"


def _classes(sample, task: str | None, metric: CorpusMetric, bank: TaskBank) -> list[str] | None:
    """The classes to choose from, where the answer is one of them."""
    task = task or sample.task
    if metric.answer_type != "label" or task not in bank:
        return None
    labels = sample.labels or {}
    return list(labels.get(task) or bank[task].labels if sample.tasks[1:] else labels or bank[task].labels) or None


def collect_results(suite, system: dict, results: list[dict], not_asked: list[dict], settings: dict) -> dict:
    """All of `results.json`.

    Args:
        suite ([`Suite`]): what was asked.
        system (`dict`): who answered, see [`~System.describe`].
        results (`list[dict]`): the rows' entries.
        not_asked (`list[dict]`): `row` and `reason` of the rows that the system cannot answer.
        settings (`dict`): `seed`, `batch_size`, `seconds`, `processes` and `hardware`.
    """
    return {
        "suite": suite.name,
        "title": suite.title,
        "source": suite.source,
        "date": datetime.date.today().isoformat(),
        "command": ["python", "evaluation/run.py", *sys.argv[1:]],
        "system": system,
        "fingerprint": system.get("fingerprint"),
        "results": results,
        "not_asked": not_asked,
        "versions": _versions(),
        **settings,
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):  # such as one of a metric that no row has
            found[package] = version(package)
    return found


def describe_hardware(device: torch.device) -> str:
    """The machine, for whoever reads the figures."""
    cores = f"{os.cpu_count()} CPU cores ({platform.machine()})"
    return f"{torch.cuda.get_device_name(device)}, {cores}" if device.type == "cuda" else cores


def print_results(results: list[dict]) -> None:
    """A line for each row."""
    for row in results:
        scored = f" {row['scored']}" if "+" in (row["task"] or "") else ""
        low, value, high = (row["scale"] * row[key] for key in ("low", "value", "high"))
        left_out = f", {sum(row['skipped'].values())} left out" if row["skipped"] else ""
        unreadable = f", {row['unreadable']} unreadable" if row["unreadable"] else ""
        paper = "   ".join(f"{system} {figure:g}" for system, figure in row["paper"].items())
        print(
            f"{row['row']:28}{scored} {row['metric']:10} {value:6.1f}  ({low:.1f} to {high:.1f})  "
            f"{row['samples']} clips{left_out}{unreadable}{f'   paper: {paper}' if paper else ''}"
        )
