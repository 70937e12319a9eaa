"""Features on disk: appended, memory-mapped, and sound whenever their writer is killed."""

import os
import uuid
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch


class StoredFeatures(NamedTuple):
    """Where the features of a recording are.

    Args:
        part (`str`): name of the part.
        start, frames (`int`): first row, and number of rows.
        checksum (`int`): CRC-32 of their bytes.
    """

    part: str
    start: int
    frames: int
    checksum: int


class FeatureStore:
    """Keeps features `(frames, width)` in bf16 by key, in a folder that any number of processes use at once.

    Each process that adds something writes a part of its own: `PART.bf16` holds the rows of all its features, and
    `PART.index` says in a line for each of them: key, first row, number of rows, CRC-32 in hex. A line is written when its
    rows are on the disk, and counts when it is whole: whoever is killed leaves at most rows that nobody looks for. A part
    is never written to again by another process.

    Args:
        folder (`str` or `Path`): the folder; it is made when something is added.
        width (`int`): of the features.
    """

    def __init__(self, folder: str | Path, width: int):
        self.folder = Path(folder)
        self.width = width
        self._entries: dict[str, StoredFeatures] = {}
        self._num_indexed: dict[str, int] = {}  # bytes of each part's index that have been read
        self._rows: dict[str, np.ndarray] = {}  # of the parts that have been opened
        self._writer: _PartWriter | None = None
        self.refresh()

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, key: str) -> torch.Tensor:
        """The features of a key, `(frames, width)`, bf16, on the CPU.

        Raises:
            KeyError: if they are not there.
            ValueError: if the disk gives others than were written.
        """
        entry = self._entries[key]
        rows = self._mapped_rows(entry)[entry.start : entry.start + entry.frames].copy()
        if len(rows) < entry.frames or zlib.crc32(rows) != entry.checksum:
            raise ValueError(
                f"{self._rows_file(entry.part)} is damaged: delete it, and what it held is encoded anew by the next run."
            )
        return torch.from_numpy(rows).view(torch.bfloat16)

    def add(self, features: dict[str, torch.Tensor]) -> None:
        """Writes features, by key. When this returns, they survive whatever happens to the process.

        Raises:
            OSError: if they cannot be written; those of earlier calls are kept.
        """
        if self._writer is None:
            self._writer = _PartWriter(self.folder)
        try:
            self._entries |= self._writer.write(features)
        except OSError:
            self._writer = None  # what it has begun is nobody's
            raise

    def refresh(self) -> None:
        """Looks for what other processes have added."""
        for index in sorted(self.folder.glob("*.index")):
            self._read_index(index)

    def _read_index(self, file: Path) -> None:
        part, position = file.stem, self._num_indexed.get(file.stem, 0)
        with file.open("rb") as stream:
            stream.seek(position)
            lines = stream.read().split(b"\n")[:-1]  # what follows the last line feed is not whole
        rows_file = self._rows_file(part)
        num_rows = rows_file.stat().st_size // (2 * self.width) if rows_file.is_file() else 0
        for line in lines:
            key, entry = _parse(line, part)
            if entry is None:
                break
            if entry.start + entry.frames <= num_rows:  # else somebody has cut the file off
                self._entries.setdefault(key, entry)
            position += len(line) + 1
        self._num_indexed[part] = position

    def _mapped_rows(self, entry: StoredFeatures) -> np.ndarray:
        rows = self._rows.get(entry.part)
        if rows is None or len(rows) < entry.start + entry.frames:  # it has grown since
            file = self._rows_file(entry.part)
            num_rows = file.stat().st_size // (2 * self.width)
            rows = np.memmap(file, dtype=np.int16, mode="r", shape=(num_rows, self.width))  # numpy knows no bf16
            self._rows[entry.part] = rows
        return rows

    def _rows_file(self, part: str) -> Path:
        return self.folder / f"{part}.bf16"

    def __getstate__(self) -> dict:
        """For a data loader's worker, which opens the files itself, and adds nothing to them."""
        return self.__dict__ | {"_rows": {}, "_writer": None}


class _PartWriter:
    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.part = uuid.uuid4().hex
        self.num_rows = 0
        self.rows = (folder / f"{self.part}.bf16").open("xb", buffering=0)
        self.index = (folder / f"{self.part}.index").open("xb", buffering=0)

    def write(self, features: dict[str, torch.Tensor]) -> dict[str, StoredFeatures]:
        entries, start = {}, self.num_rows
        for key, tensor in features.items():
            content = tensor.to("cpu", torch.bfloat16).contiguous().view(torch.int16).numpy()
            _write_all(self.rows, content)
            entries[key] = StoredFeatures(self.part, start, len(content), zlib.crc32(content))
            start += len(content)
        os.fsync(self.rows.fileno())
        lines = [f"{key} {entry.start} {entry.frames} {entry.checksum:08x}\n" for key, entry in entries.items()]
        _write_all(self.index, "".join(lines).encode())
        self.num_rows = start
        return entries


def _write_all(stream, content) -> None:
    """A raw file may take less than it is given, where the disk is nearly full; then it raises."""
    rest = memoryview(content).cast("B")
    while rest:
        rest = rest[stream.write(rest) :]


def _parse(line: bytes, part: str) -> tuple[str, StoredFeatures | None]:
    """An index's line; no entry where it is not one."""
    try:
        key, start, frames, checksum = line.decode("ascii").split(" ")
        return key, StoredFeatures(part, int(start), int(frames), int(checksum, 16))
    except ValueError:
        return "", None
