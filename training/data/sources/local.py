"""Folders of files as corpora are unpacked: recordings, JSON, tables, lines of text."""

import csv
import gzip
import itertools
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from string import Template

from ..rows import RejectedRow, Row
from .base import Source, listed


READABLE = {".wav", ".flac", ".mp3", ".ogg", ".opus", ".sph", ".aif", ".aiff"}  # by libsndfile


@dataclass(frozen=True, kw_only=True)
class FileSource(Source):
    """Files under a folder.

    Args:
        root (`str` or `list[str]`): the folder, `$NAME` standing for an environment variable; of several the first that
            is there.
        files (`str` or `list[str]`): glob patterns below the root; `{split}` stands for their name of a split. What they
            match is read in the order of the paths.
        pattern (`str`, *optional*): regular expression that a file's path below the root matches in full, or it is no
            part of the corpus; its named groups are columns. So are `_folder` (below the root) and `_stem`.
        audio_files (`str` or `list[str]`, *optional*): glob patterns of recordings. The `audio` column is then the name
            of one of them, with or without its ending; without these it is a path below the root.
    """

    root: str | list[str]
    files: str | list[str]
    pattern: str | None = None
    audio_files: str | list[str] = field(default_factory=list)

    def __post_init__(self):
        super().__post_init__()
        try:
            re.compile(self.pattern or "")
        except re.error as error:
            raise ValueError(f"key pattern is no regular expression ({error}).") from error

    @cached_property
    def folder(self) -> Path | None:
        """The root that is there, if any."""
        expanded = (Path(os.path.expandvars(root)) for root in listed(self.root))
        return next((folder for folder in expanded if folder.is_dir()), None)

    def is_there(self) -> bool:
        return self.folder is not None and any(next(self.found_files(name), None) for name in self.split_names)

    def place(self) -> str:
        return " or ".join(f"{root}/{files}" for root in listed(self.root) for files in listed(self.files))

    def found_files(self, name: str | None) -> Iterator[tuple[Path, Row]]:
        """The files of a split, with the columns that their paths give."""
        patterns = [files if name is None else files.replace("{split}", name) for files in listed(self.files)]
        for file in sorted({file for pattern in patterns for file in self.folder.glob(pattern)}):
            below = file.relative_to(self.folder)
            match = re.fullmatch(self.pattern, below.as_posix()) if self.pattern else None
            if file.is_file() and (match or not self.pattern):
                yield (
                    file,
                    {"_folder": below.parent.as_posix(), "_stem": file.stem, **(match.groupdict() if match else {})},
                )

    @cached_property
    def recordings(self) -> dict[str, str]:
        """The paths of `audio_files` by their names, without endings."""
        found = (file for files in listed(self.audio_files) for file in self.folder.glob(files))
        return {file.stem: str(file) for file in sorted(found) if file.suffix.lower() in READABLE}

    def find_audio(self, raw: Row, value):
        if not isinstance(value, str) or not value:
            raise ValueError("column audio is empty")
        if not self.audio_files:
            return str(self.folder / value)
        name = Path(value).name
        stem = Path(name).stem if Path(name).suffix.lower() in READABLE | {".m4a"} else name
        if stem not in self.recordings:
            raise ValueError(f"no recording: {value} is not among {', '.join(listed(self.audio_files))}")
        return self.recordings[stem]

    def raw_rows(self, name: str | None, streaming: bool) -> Iterator[Row | RejectedRow]:
        for file, columns in self.found_files(name):
            for row in self.read(file, columns, name):
                yield row if isinstance(row, RejectedRow) else columns | row

    def read(self, file: Path, columns: Row, name: str | None) -> Iterator[Row | RejectedRow]:
        """The rows of one file."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class AudioFolderSource(FileSource):
    """A recording is a row; what is known of it stands in its path. The `audio` column is there of itself."""

    def __post_init__(self):
        super().__post_init__()
        self.columns.setdefault("audio", "_path")

    def read(self, file: Path, columns: Row, name: str | None) -> Iterator[Row]:
        yield {"_path": file.relative_to(self.folder).as_posix()}


@dataclass(frozen=True, kw_only=True)
class JsonlSource(FileSource):
    """A JSON object a line.

    Args:
        explode (`str`, *optional*): a column that holds a list of objects, such as the recordings of a sentence: each of
            them makes a row of its own, and its fields become columns.
    """

    explode: str | None = None

    def read(self, file: Path, columns: Row, name: str | None) -> Iterator[Row | RejectedRow]:
        for number, line in enumerate(_lines(file), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                yield RejectedRow(f"{file}, line {number}", f"not JSON: {error}")
                continue
            if not isinstance(row, dict):
                yield RejectedRow(f"{file}, line {number}", f"not an object: {type(row).__name__}")
            elif self.explode is None:
                yield row
            else:
                yield from (row | item for item in row.get(self.explode) or [])


@dataclass(frozen=True, kw_only=True)
class JsonSource(FileSource):
    """One JSON document a file.

    Args:
        records (`str`): which field of the document holds the list of rows; `{split}` stands for their name of a split,
            `*` for every field. A row that is a list has the columns `0`, `1`, ...
    """

    records: str

    def read(self, file: Path, columns: Row, name: str | None) -> Iterator[Row | RejectedRow]:
        try:
            document = json.loads("".join(_lines(file)))
        except json.JSONDecodeError as error:
            yield RejectedRow(str(file), f"not JSON: {error}")
            return
        field_name = self.records.replace("{split}", name or "")
        lists = list(document.values()) if field_name == "*" else [document.get(field_name, [])]
        for row in itertools.chain(*lists):
            yield {str(index): value for index, value in enumerate(row)} if isinstance(row, list) else row


@dataclass(frozen=True, kw_only=True)
class TableSource(FileSource):
    """A table with a header line.

    Args:
        delimiter (`str`, *optional*): by default a tab in `.tsv`, a comma elsewhere. Tab-separated tables know no quotes.
        escape (`str`, *optional*): what stands before a delimiter that is none.
    """

    delimiter: str | None = None
    escape: str | None = None

    def read(self, file: Path, columns: Row, name: str | None) -> Iterator[Row | RejectedRow]:
        delimiter = self.delimiter or ("\t" if ".tsv" in file.suffixes else ",")
        quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
        reader = csv.DictReader(_lines(file), delimiter=delimiter, quoting=quoting, escapechar=self.escape)
        for row in reader:
            if None in row or None in row.values():
                yield RejectedRow(f"{file}, line {reader.line_num}", "not as many cells as the header has")
            else:
                yield row


@dataclass(frozen=True, kw_only=True)
class LinesSource(FileSource):
    """Lines of text.

    Args:
        line (`str`): regular expression that a line matches in full; its named groups are columns. Empty lines, and those
            that start with `#`, are none.
        beside (`dict[str, str]`, *optional*): columns out of files in the same folder that run line by line with this one;
            `{split}` and `$name` stand for what the split and the path give.
    """

    line: str
    beside: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        super().__post_init__()
        try:
            re.compile(self.line)
        except re.error as error:
            raise ValueError(f"key line is no regular expression ({error}).") from error

    def read(self, file: Path, columns: Row, name: str | None) -> Iterator[Row | RejectedRow]:
        lines = [line.rstrip("\r\n") for line in _lines(file)]
        others = {}
        for column, other in self.beside.items():
            other = file.parent / Template(other.replace("{split}", name or "")).substitute(columns)
            if not other.is_file():
                yield RejectedRow(str(file), f"no file beside it: {other.name}")
                return
            others[column] = [line.rstrip("\r\n") for line in _lines(other)]
            if len(others[column]) != len(lines):
                yield RejectedRow(
                    str(file), f"not as many lines: {len(lines)}, but {len(others[column])} in {other.name}"
                )
                return
        for number, line in enumerate(lines, start=1):
            if not line.strip() or line.startswith("#"):
                continue
            match = re.fullmatch(self.line, line)
            if match is None:
                yield RejectedRow(f"{file}, line {number}", f"not such a line: {line[:80]!r}")
            else:
                yield match.groupdict() | {column: texts[number - 1] for column, texts in others.items()}


def _lines(file: Path) -> Iterator[str]:
    """Lines ended by a newline alone, as a text may hold other separators.

    Raises:
        ValueError: if the file is not UTF-8.
    """
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rt", encoding="utf-8-sig", newline="\n") as stream:
        try:
            yield from stream
        except UnicodeDecodeError as error:
            raise ValueError(f"{file} is not UTF-8 ({error}).") from error
