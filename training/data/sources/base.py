"""What every source has: splits, columns, and rows that can be read."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from string import Template
from typing import ClassVar

from ..rows import RejectedRow, Row, matches


@dataclass(frozen=True, kw_only=True)
class Source:
    """One layout in which a corpus is published.

    Args:
        splits (`dict`): our names (train, validation, test, ...) -> theirs: a name, a list of names that belong together,
            or, where one file holds them all, regular expressions that a row's columns (ours) match in full.
        columns (`dict`): our names -> theirs; with a `$` it is a text made of theirs (`${scenario}_${action}`), and
            `{value: ...}` is the same for every row, `{optional: ...}` a column that rows may lack. `audio` is the
            recording; `start` and `end` (s), where there are any, cut it out of a longer one; `key` is unique in a split;
            `speaker` says who talks; `snr` is that of speech to noise, dB.
        derive (`list`, *optional*): derivations that this layout needs before the corpus's own.
    """

    splits: dict[str, str | list[str] | dict[str, str]]
    columns: dict[str, str | dict[str, object]]
    derive: list[dict | str] = field(default_factory=list)

    remote: ClassVar[bool] = False  # whether it may be read without lying here

    def __post_init__(self):
        for ours, theirs in self.columns.items():
            if isinstance(theirs, dict) and set(theirs) not in ({"value"}, {"optional"}):
                raise ValueError(
                    f"key columns.{ours} is {theirs!r}; it is a text, or a mapping with value or optional alone."
                )
            if isinstance(theirs, str) and any(m["invalid"] is not None for m in Template.pattern.finditer(theirs)):
                raise ValueError(f"key columns.{ours} is {theirs!r}, whose $ is followed by no name.")
        for name, split in self.splits.items():
            where = split if isinstance(split, dict) else {}
            check_patterns(where, f"splits.{name}")
            if unknown := where.keys() - self.columns.keys() - {"key"}:
                raise ValueError(f"key splits.{name} asks for {unknown.pop()!r}, which is none of columns.")

    def is_there(self) -> bool:
        """Whether it lies on this machine."""
        raise NotImplementedError

    def place(self) -> str:
        """Where it lies, or would lie."""
        raise NotImplementedError

    @property
    def split_names(self) -> list[str | None]:
        """Their names of all our splits; `None` stands for what is told apart by its columns."""
        return [
            name
            for theirs in self.splits.values()
            for name in ([None] if isinstance(theirs, dict) else listed(theirs))
        ]

    def rows(self, split: str, streaming: bool = False) -> Iterator[Row | RejectedRow]:
        """The rows of one of our splits, in the order of the files, under our column names.

        Args:
            split (`str`): one of the keys of `splits`.
            streaming (`bool`, *optional*, defaults to `False`): store nothing of what lies elsewhere.

        Raises:
            FileNotFoundError: if it is not there.
            ValueError: if there is no such split, or a file as a whole cannot be read.
        """
        if split not in self.splits:
            raise ValueError(f"{self.place()} has no split {split!r}; it has {', '.join(self.splits)}.")
        theirs = self.splits[split]
        where = theirs if isinstance(theirs, dict) else {}
        count = 0
        for name in [None] if isinstance(theirs, dict) else listed(theirs):
            for raw in self.raw_rows(name, streaming):
                row = raw if isinstance(raw, RejectedRow) else self._rename(raw, f"{split}/{count}")
                count += 1
                if isinstance(row, RejectedRow) or matches(row, where):
                    yield row

    def raw_rows(self, name: str | None, streaming: bool) -> Iterator[Row | RejectedRow]:
        """The rows of one of their splits (`None`: of all), under their column names; `audio`, if they have one, is found
        by [`~Source.find_audio`]."""
        raise NotImplementedError

    def find_audio(self, raw: Row, value):
        """The recording that a row's `audio` column speaks of: a path, or a reference.

        Raises:
            ValueError: if there is none.
        """
        return value

    def _rename(self, raw: Row, position: str) -> Row | RejectedRow:
        """Our columns of a row; `position` is its key unless it has one."""
        row = {}
        try:
            for ours, theirs in self.columns.items():
                row[ours] = _value(raw, theirs)
            row["key"] = str(row.get("key") or position)
            if "audio" in row:
                row["audio"] = self.find_audio(raw, row["audio"])
        except KeyError as error:
            return RejectedRow(str(row.get("key") or position), f"column {error.args[0]} is missing")
        except ValueError as error:
            return RejectedRow(str(row.get("key") or position), str(error))
        return row


def check_patterns(where: dict, name: str) -> None:
    """Raises `ValueError` unless all of them are regular expressions."""
    for column, pattern in where.items():
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise ValueError(f"key {name}.{column} is no regular expression ({error}).") from error


def listed(value: str | list[str]) -> list[str]:
    """One or several, as a list."""
    return [value] if isinstance(value, str) else value


def _value(raw: Row, theirs: str | dict):
    if isinstance(theirs, dict):
        return raw.get(theirs["optional"]) if "optional" in theirs else theirs["value"]
    if "$" in theirs:
        return Template(theirs).substitute(raw)
    return raw[theirs]
