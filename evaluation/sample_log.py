"""Every answer of an evaluation, a line each: written as they come, so that a run that was killed goes on where it was."""

import json
import os
from pathlib import Path

from ..training.data.whole_files import write_whole


SAMPLES_NAME = "samples.jsonl"
_PART = "samples.part-{rank}.jsonl"


class SampleLog:
    """The lines of one rank, appended a batch at a time.

    A batch is there whole or not at all: of a batch that was being written when the run was killed nothing is kept.

    Args:
        folder (`Path`): where results go.
        rank (`int`, *optional*, defaults to 0): of this process.
    """

    def __init__(self, folder: Path, rank: int = 0):
        self.file = Path(folder) / _PART.format(rank=rank)

    def append(self, batch: str, lines: list[dict]) -> None:
        """Writes the lines of a batch to the disk."""
        text = json.dumps({"batch": batch, "lines": lines}, ensure_ascii=False)
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(f"\n{text}\n")  # begun anew, since a killed run may have left half a line
            stream.flush()
            os.fsync(stream.fileno())


def read_parts(folder: Path) -> dict[str, list[dict]]:
    """The whole batches that all ranks of this run and of those before have written: name -> lines."""
    batches = {}
    for file in sorted(Path(folder).glob(_PART.format(rank="*"))):
        with file.open(encoding="utf-8", errors="replace") as stream:
            for text in stream:
                try:
                    record = json.loads(text)
                except json.JSONDecodeError:  # empty, or what a killed run left
                    continue
                batches[record["batch"]] = record["lines"]
    return batches


def remove_parts(folder: Path) -> None:
    """Forgets what an unfinished run has answered."""
    for file in Path(folder).glob(_PART.format(rank="*")):
        file.unlink()


def write_samples(folder: Path, lines: list[dict]) -> None:
    """Writes `samples.jsonl`, whole."""
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    write_whole(Path(folder) / SAMPLES_NAME, text)


def read_samples(folder: Path) -> list[dict]:
    """The lines of `samples.jsonl`.

    Raises:
        FileNotFoundError: if there is none.
    """
    file = Path(folder) / SAMPLES_NAME
    if not file.is_file():
        raise FileNotFoundError(f"There is no {file}: evaluation/run.py writes it.")
    with file.open(encoding="utf-8") as stream:  # splitlines() would also end a line at a text's U+2028
        return [json.loads(text) for text in stream]
