"""What a run's data are made of, and what of them was left out: as a file, and for the eye."""

import dataclasses
import json
import logging
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from ...processing.tasks_speechverse import TaskBank
from .filters import NO_TASK, CheckedSample
from .whole_files import write_whole


logger = logging.getLogger(__name__)

REPORT_NAME = "data_report.json"
DROPPED_NAME = "dropped.jsonl"
CACHE_NAME = "recordings.json"  # what was heard: a later look at the same recordings costs nothing
QUANTILES = {"min": 0.0, "5%": 0.05, "median": 0.5, "95%": 0.95, "max": 1.0}
MAX_LABELS = 100  # answers of more kinds than that are no classes


@dataclasses.dataclass
class DataPart:
    """The training or the validation data of a run, as they were read and checked.

    Args:
        checked (`list[CheckedSample]`): every sample, in order.
        rejected (`list[dict]`, *optional*): rows that gave no sample, as `{"corpus", "split", "key", "audio", "task",
            "reason"}`, of which `reason` has to be there.
    """

    checked: list[CheckedSample]
    rejected: list[dict] = dataclasses.field(default_factory=list)

    @property
    def kept(self) -> list[CheckedSample]:
        return [one for one in self.checked if one.fault is None]

    @property
    def dropped(self) -> list[dict]:
        """The rows of `dropped.jsonl`: rows that gave no sample first."""
        return self.rejected + [
            one.as_row() | {"task": one.sample.name} for one in self.checked if one.fault is not None
        ]


def kind_of(reason: str) -> str:
    """The kind of a reason: what stands before its colon."""
    return reason.split(":")[0]


def count_dropped(rows: list[dict]) -> dict[str, int]:
    """Dropped rows by the kind of their reason, most frequent first."""
    return dict(Counter(kind_of(row["reason"]) for row in rows).most_common())


def summarise(part: DataPart, tasks: TaskBank | None = None) -> dict:
    """The figures of a part: `samples`, `kept`, `hours`, `dropped`, and the same by task and by corpus.

    What a corpus serves in several views, such as `st_de` and `st_fr`, counts as several tasks.

    Args:
        part ([`DataPart`]): the part.
        tasks ([`TaskBank`], *optional*): say which answers are made of labels.
    """
    by_task, by_corpus = defaultdict(list), defaultdict(lambda: defaultdict(list))
    for one in part.kept:
        name = one.sample.name or NO_TASK
        by_task[name].append(one)
        by_corpus[_place(one.sample.corpus, one.sample.split)][name].append(one)
    dropped = defaultdict(lambda: defaultdict(list))
    for row in part.dropped:
        dropped[_place(row.get("corpus"), row.get("split"))][row.get("task") or NO_TASK].append(row)
    return {
        "samples": len(part.checked) + len(part.rejected),
        "kept": len(part.kept),
        "hours": _hours(part.kept),
        "dropped": count_dropped(part.dropped),
        "tasks": {task: _summarise_task(kept, tasks) for task, kept in by_task.items()},
        "corpora": {
            place: {
                task: {
                    "kept": len(by_corpus[place][task]),
                    "hours": _hours(by_corpus[place][task]),
                    "dropped": count_dropped(dropped[place][task]),
                }
                for task in dict.fromkeys([*by_corpus[place], *dropped[place]])
            }
            for place in dict.fromkeys([*by_corpus, *dropped])
        },
    }


def write_report(folder: str | Path, parts: dict[str, DataPart], tasks: TaskBank | None = None, **notes) -> dict:
    """Writes `data_report.json`, and `dropped.jsonl`, a line for everything that was left out and why.

    Args:
        folder (`str` or `Path`): where; made if need be.
        parts (`dict[str, DataPart]`): such as `train` and `eval`.
        tasks ([`TaskBank`], *optional*): see [`summarise`].
        **notes: what else the report says.

    Returns:
        the report.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    report = {**{name: summarise(part, tasks) for name, part in parts.items()}, **notes}
    write_whole(folder / REPORT_NAME, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    rows = [{"part": name, **row} for name, part in parts.items() for row in part.dropped]
    write_whole(folder / DROPPED_NAME, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    if rows:
        counts = ", ".join(f"{count} {kind}" for kind, count in count_dropped(rows).items())
        logger.warning(f"{len(rows)} samples are left out ({counts}); they are listed in {folder / DROPPED_NAME}")
    return report


def format_report(report: dict, parts: list[str]) -> str:
    """Tables of a report: what each task has, its labels, and what was left out of each corpus."""
    blocks = []
    for name in parts:
        part = report[name]
        blocks.append(f"{name}: {part['kept']} of {part['samples']} samples, {part['hours']:.2f} h")
        blocks.append(_format_tasks(part["tasks"]))
        blocks += [_format_labels(task, facts["labels"]) for task, facts in part["tasks"].items() if facts["labels"]]
        blocks.append(_format_corpora(part["corpora"]))
    return "\n\n".join(filter(None, blocks))


def _place(corpus: str | None, split: str | None) -> str:
    return f"{corpus or 'manifest'}/{split}" if split else corpus or "manifest"


def _hours(checked: list[CheckedSample]) -> float:
    return round(sum(one.seconds or 0.0 for one in checked) / 3600, 4)


def _summarise_task(kept: list[CheckedSample], tasks: TaskBank | None) -> dict:
    return {
        "kept": len(kept),
        "hours": _hours(kept),
        "labels": _count_labels(kept, tasks),
        **{
            name: _quantiles([getattr(one, name) for one in kept])
            for name in ("seconds", "audio_tokens", "label_tokens")
        },
    }


def _count_labels(kept: list[CheckedSample], tasks: TaskBank | None) -> dict[str, int] | None:
    """How often each label is the answer, or a slot of it; labels that never are, too. `None` for free text."""
    if any(isinstance(one.sample.answer, dict) for one in kept):  # joint answers: hardly one is there twice
        return None
    task = kept[0].sample.task
    known = tasks[task] if tasks is not None and task in tasks else None
    if known is not None and known.answer_type == "slots":
        found = Counter(slot["label"] for one in kept for slot in one.sample.answer)
    elif known is None or known.answer_type == "label":
        found = Counter(one.sample.target for one in kept)
    else:
        return None
    if known is None and len(found) > MAX_LABELS:
        return None
    # A sample may list classes of its own; the task's are listed only where they were asked for.
    own = known is not None and all(one.sample.labels in (None, known.labels) for one in kept)
    return dict(found.most_common()) | {label: 0 for label in (known.labels if own else ()) if label not in found}


def _quantiles(values: list) -> dict[str, float] | None:
    if any(value is None for value in values):
        return None
    found = np.quantile(values, list(QUANTILES.values()), method="nearest")
    return {name: round(float(value), 3) for name, value in zip(QUANTILES, found, strict=True)}


def format_table(head: list[str], rows: list[list]) -> str:
    """A table for the terminal: the first column to the left, the others to the right."""
    cells = [head, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width) for index, (cell, width) in enumerate(line)
        ).rstrip()
        for line in (list(zip(row, widths, strict=True)) for row in cells)
    )


def _format_tasks(tasks: dict[str, dict]) -> str:
    def span(facts: dict | None, digits: int = 0) -> list[str]:
        return ["-"] * 3 if facts is None else [f"{facts[name]:.{digits}f}" for name in ("median", "95%", "max")]

    head = ["task", "samples", "hours", "s: median", "95%", "max", "frames: median", "95%", "max"]
    head += ["label tokens: median", "95%", "max"]
    rows = [
        [task, facts["kept"], f"{facts['hours']:.2f}"]
        + span(facts["seconds"], digits=1)
        + span(facts["audio_tokens"])
        + span(facts["label_tokens"])
        for task, facts in tasks.items()
    ]
    return format_table(head, rows) if rows else ""


def _format_labels(task: str, labels: dict[str, int]) -> str:
    total = sum(labels.values())
    rows = [[label, count, f"{count / total:.1%}"] for label, count in labels.items()]
    return format_table([f"{task}: label", "samples", "share"], rows)


def _format_corpora(corpora: dict[str, dict]) -> str:
    rows = [
        [place, task, facts["kept"], sum(facts["dropped"].values()), _reasons(facts["dropped"])]
        for place, tasks in corpora.items()
        for task, facts in tasks.items()
    ]
    return format_table(["corpus", "task", "kept", "dropped", "why"], rows) if rows else ""


def _reasons(dropped: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in dropped.items())
