"""Rows on their way from a corpus to samples."""

import re
from dataclasses import dataclass


Row = dict  # column -> value; `key` and, unless there are only texts, `audio` are among them


@dataclass(frozen=True)
class RejectedRow:
    """A row, or one task's part in it, that gives no sample: reported, never fatal.

    Args:
        key (`str`): of the row, or its place in a file.
        reason (`str`): such as `not JSON: Expecting value`; what stands before a colon is its kind.
        task (`str`, *optional*): the view of the corpus that it cannot serve; `None`: no view at all.
        corpus, split (`str`, *optional*): where it stands.
    """

    key: str
    reason: str
    task: str | None = None
    corpus: str | None = None
    split: str | None = None


def matches(row: Row, where: dict[str, str]) -> bool:
    """Whether the row's columns match these regular expressions in full; a column that is empty or absent is ''."""
    return all(re.fullmatch(pattern, text_of(row.get(name)), re.DOTALL) for name, pattern in where.items())


def text_of(value) -> str:
    """A column's value as text; `None` is ''."""
    return "" if value is None else str(value)
