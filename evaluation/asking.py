"""Asks a system the rows of a suite: in batches that depend on nothing but the rows, on any number of processes."""

import os
from dataclasses import dataclass
from pathlib import Path

from accelerate import PartialState
from tqdm.auto import tqdm

from ..processing.tasks_speechverse import JointTask, Task, TaskBank
from ..training.data.recordings import Recording, audio_name, audio_size
from ..training.data.sample import JointSample, Sample
from .criteria import parse_criteria
from .sample_log import SampleLog, read_parts
from .suite import LoadedRow


DATA = "SPEECHVERSE_DATA"
PASS, FAIL = "pass", "fail"  # what a row with criteria comes to


@dataclass(frozen=True)
class Batch:
    """Samples of a row that are asked about at once; recordings of like length share one.

    Args:
        name (`str`): the same in every run with the same rows and batch size.
        row ([`LoadedRow`]): the row.
        indices (`list[int]`): which of its samples.
    """

    name: str
    row: LoadedRow
    indices: list[int]


def plan_batches(rows: list[LoadedRow], batch_size: int) -> list[Batch]:
    """All batches, in the order in which they are asked: of a row the longest recordings first, as memory would run out there."""
    batches = []
    for row in rows:
        order = sorted(range(len(row.samples)), key=lambda index: -audio_size(row.samples[index].audio))
        for start in range(0, len(order), batch_size):
            batches.append(Batch(f"{row.row.id} {start}", row, order[start : start + batch_size]))
    return batches


def ask(system, batches: list[Batch], bank: TaskBank, folder: Path) -> None:
    """Answers what is not answered yet, and writes it to this process's log in `folder`. Every process calls it.

    Args:
        system ([`System`]): what is asked.
        batches (`list[Batch]`): all of them; this process takes its part.
        bank ([`TaskBank`]): the tasks, by which answers are read.
        folder (`Path`): shared by the processes.
    """
    state = PartialState()
    done = read_parts(folder)
    state.wait_for_everyone()  # a process that is slow to read must not find what the others have answered by then
    mine = [batch for batch in batches[state.process_index :: state.num_processes] if batch.name not in done]
    log = SampleLog(folder, state.process_index)
    total = sum(len(batch.indices) for batch in mine)
    with tqdm(total=total, unit="clip", disable=not state.is_main_process) as progress:
        for batch in mine:
            progress.set_description(batch.row.row.id, refresh=False)
            samples = [batch.row.samples[index] for index in batch.indices]
            answers = system.answer(samples, batch.row)
            lines = [
                describe_answer(batch.row, index, answer, bank)
                for index, answer in zip(batch.indices, answers, strict=True)
            ]
            log.append(batch.name, lines)
            progress.update(len(lines))
    state.wait_for_everyone()


def collect(batches: list[Batch], folder: Path) -> list[dict]:
    """The lines of all batches, in the order of the rows and of their samples."""
    done = read_parts(folder)
    places = {row: place for place, row in enumerate(dict.fromkeys(batch.row.row.id for batch in batches))}
    lines = [line for batch in batches for line in done[batch.name]]
    return sorted(lines, key=lambda line: (places[line["row"]], line["index"]))


def describe_answer(row: LoadedRow, index: int, answer: dict, bank: TaskBank) -> dict:
    """A line of `samples.jsonl`, without scores."""
    sample = row.samples[index]
    reference, read = read_answer(row, sample, answer, bank)
    return {
        "row": row.row.id,
        "index": index,
        "key": sample.key,
        "audio": portable_name(sample.audio),
        "corpus": sample.corpus,
        "split": sample.split,
        "view": sample.view,
        "task": sample.task,
        "speaker": sample.speaker,
        "duration": sample.duration,
        "snr": sample.snr,
        "instruction": row.instruction(sample),
        "output": answer["text"],
        **read,
        "unread": answer.get("unread", []),
        "truncated": answer.get("truncated", False),
        "reference": reference,
    }


def read_answer(row: LoadedRow, sample: Sample, answer: dict, bank: TaskBank) -> tuple[object, dict]:
    """What would have been right, and `answer`, what was answered, both as the sample's task has them.

    Of a row with criteria they are `pass`, and `pass` or `fail`; `failed` then names those that are not met.
    """
    if row.row.passes is not None:
        failed = parse_criteria(row.row.passes).failed(answer["text"], sample)
        return PASS, {"answer": FAIL if failed else PASS, "failed": failed}
    reference, task = parse_reference(sample, bank)
    if task is None:
        return reference, {"answer": answer["text"].strip()}
    if row.is_in_words(sample):  # no task has read it yet
        return reference, {"answer": task.parse(answer["text"], sample.labels or None).answer}
    return reference, {"answer": answer["answer"]}


def parse_reference(sample: Sample, bank: TaskBank) -> tuple[object, Task | JointTask | None]:
    """What would have been right, and the task that reads answers. `None` where the target is none of its task's answers, as
    of an instruction that lists classes of its own: the texts themselves are the answers then."""
    if isinstance(sample, JointSample):
        return sample.answer, sample.joint
    if sample.task in bank:
        reference, unread = bank[sample.task].parse(sample.target, sample.labels or None)
        if reference is not None and not unread:
            return reference, bank[sample.task]
    return sample.target.strip(), None


def portable_name(audio: str | Recording) -> str:
    """A recording's path, from the data folder on where it lies there: samples of two machines then name the same ones."""
    name, root = audio_name(audio), os.environ.get(DATA)
    if root and Path(name).is_absolute() and Path(name).is_relative_to(Path(root).absolute()):
        return f"${DATA}/{Path(name).relative_to(Path(root).absolute()).as_posix()}"
    if root and Path(name).is_relative_to(root):
        return f"${DATA}/{Path(name).relative_to(root).as_posix()}"
    return name
