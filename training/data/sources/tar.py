"""Shards: uncompressed tars in which the files of one example share a name (WebDataset)."""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..recordings import TarMember
from ..rows import RejectedRow, Row
from .local import READABLE, FileSource


@dataclass(frozen=True, kw_only=True)
class TarSource(FileSource):
    """Examples in tars, indexed once and then read by their offsets.

    The columns of an example are the fields of its `.json`; the text of any other file that is no recording, named by its
    ending (`txt`); `__key__`, the name that its files share; and `audio`, which is there of itself.
    """

    def __post_init__(self):
        super().__post_init__()
        self.columns.setdefault("audio", "_member")
        self.columns.setdefault("key", "__key__")

    def find_audio(self, raw: Row, value):
        if not isinstance(value, TarMember):
            raise ValueError("no recording: none of its files is one")
        return value

    def read(self, file: Path, columns: Row, name: str | None) -> Iterator[Row | RejectedRow]:
        row: Row = {}
        try:
            with tarfile.open(file, "r:") as archive:
                for member in archive:
                    if not member.isfile():
                        continue
                    path = PurePosixPath(member.name)
                    stem, _, ending = path.name.partition(".")
                    key = str(path.parent / stem)
                    if row and row["__key__"] != key:
                        yield row
                        row = {}
                    row.setdefault("__key__", key)
                    row.setdefault("_member", None)
                    problem = _add(row, archive, member, ending.lower(), file)
                    if problem:
                        yield RejectedRow(f"{file}/{member.name}", problem)
        except tarfile.ReadError as error:
            raise ValueError(
                f"{file} is no uncompressed tar ({error}): unpack it, or repack it without gzip."
            ) from error
        if row:
            yield row


def _add(row: Row, archive: tarfile.TarFile, member: tarfile.TarInfo, ending: str, file: Path) -> str | None:
    """Adds one file to an example; returns what is wrong with it."""
    if f".{ending}" in READABLE:
        row["_member"] = TarMember(str(file), member.name, member.offset_data, member.size)
        return None
    content = archive.extractfile(member).read()
    try:
        text = content.decode("utf-8")
        if ending != "json":
            row[ending] = text.strip()
            return None
        fields = json.loads(text)
    except ValueError as error:  # of the encoding, or of JSON
        return f"not readable: {error}"
    if not isinstance(fields, dict):
        return f"not an object: {type(fields).__name__}"
    row.update((name, value) for name, value in fields.items() if name not in ("__key__", "_member"))
    return None
