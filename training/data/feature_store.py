"""Features on disk: appended, memory-mapped, and sound whenever their writer is killed."""

import os
import uuid
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch


class StoredFeatures(NamedTuple):
    """Where the features of one key are.

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

    Every process that adds something writes a part of its own: `PART.bf16` holds the rows of all its features, and
    `PART.index` a line for each of them: key, first row, number of rows, CRC-32 in hex. A line is written when its rows are
    on the disk, and counts when it is whole: whoever is killed leaves at most rows that nothing points to. No process adds
    to a part that another one has begun.

    Args:
        folder (`str` or `Path`): the folder; it is made when something is added.
        width (`int`): of the features.
    """

    def __init__(self, folder: str | Path, width: int):
        self.folder = Path(folder)
        self.width = width
        self._entries: dict[str, StoredFeatures] = {}
        self._num_read: dict[str, int] = {}  # bytes of every part's index that are known
        self._rows: dict[str, np.ndarray] = {}  # of the parts that have been opened
        self._own_part: str | None = None
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
            file = self._rows_file(entry.part)
            raise ValueError(f"{file} is damaged: delete it, and the next run encodes anew what was in it.")
        return torch.from_numpy(rows).view(torch.bfloat16)

    def add(self, features: dict[str, torch.Tensor]) -> None:
        """Writes features `(frames, width)` by key. When it returns, they outlive the process, however that ends.

        Raises:
            OSError: if they cannot be written; those of earlier calls are kept.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._own_part is None:
            self._own_part = uuid.uuid4().hex
        try:
            self._entries |= self._append(self._own_part, features)
        except BaseException:
            self._own_part = None  # which may end with half a row, or half a line
            raise

    def _append(self, part: str, features: dict[str, torch.Tensor]) -> dict[str, StoredFeatures]:
        entries = {}
        with self._rows_file(part).open("ab") as stream:
            start = stream.tell() // self._row_bytes
            for key, tensor in features.items():
                rows = tensor.to("cpu", torch.bfloat16).contiguous().view(torch.int16).numpy()
                stream.write(rows)
                entries[key] = StoredFeatures(part, start, len(rows), zlib.crc32(rows))
                start += len(rows)
            stream.flush()
            os.fsync(stream.fileno())
        lines = [f"{key} {entry.start} {entry.frames} {entry.checksum:08x}\n" for key, entry in entries.items()]
        with (self.folder / f"{part}.index").open("ab") as stream:
            stream.write("".join(lines).encode())
        return entries

    def refresh(self) -> None:
        """Looks for what other processes have added."""
        for index in sorted(self.folder.glob("*.index")):
            self._read_index(index)

    def _read_index(self, index: Path) -> None:
        part = index.stem
        with index.open("rb") as stream:
            stream.seek(self._num_read.get(part, 0))
            lines = stream.read().split(b"\n")[:-1]  # what follows the last line feed is not whole
        num_rows = self._count_rows(part)
        for line in lines:
            try:
                key, start, frames, checksum = line.decode("ascii").split(" ")
                entry = StoredFeatures(part, int(start), int(frames), int(checksum, 16))
            except ValueError:
                break  # not one of our lines: after a power failure a file may end with zeros
            if entry.start + entry.frames <= num_rows:  # else the file of the rows was cut off
                self._entries.setdefault(key, entry)
            self._num_read[part] = self._num_read.get(part, 0) + len(line) + 1

    def _mapped_rows(self, entry: StoredFeatures) -> np.ndarray:
        rows = self._rows.get(entry.part)
        if rows is None or len(rows) < entry.start + entry.frames:  # the part has grown since
            shape = (self._count_rows(entry.part), self.width)
            rows = np.memmap(self._rows_file(entry.part), np.int16, mode="r", shape=shape)  # numpy knows no bf16
            self._rows[entry.part] = rows
        return rows

    def _count_rows(self, part: str) -> int:
        """Whole rows that a part holds."""
        file = self._rows_file(part)
        return file.stat().st_size // self._row_bytes if file.is_file() else 0

    def _rows_file(self, part: str) -> Path:
        return self.folder / f"{part}.bf16"

    @property
    def _row_bytes(self) -> int:
        return 2 * self.width

    def __getstate__(self) -> dict:
        """For another process, which maps the files itself and adds to none of ours."""
        return self.__dict__ | {"_rows": {}, "_own_part": None}
