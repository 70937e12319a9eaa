"""A column -> a label, or a tidier text."""

import bisect
import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from .base import ColumnDerivation


@dataclass(frozen=True, kw_only=True)
class Lowercase(ColumnDerivation):
    """Capitals carry nothing in a transcript that is all capitals, and cost an LLM many tokens."""

    def value(self, value: str) -> str:
        return value.lower()


@dataclass(frozen=True, kw_only=True)
class Bins(ColumnDerivation):
    """A number -> a label, by where it lies.

    Args:
        cuts (`list[float]`): ascending. A number that is exactly a cut belongs to the middle one of three labels, and in
            general to the bin nearer the middle, so that a scale's two ends are treated alike.
        labels (`list[str]`): one more than cuts.
    """

    cuts: list[float]
    labels: list[str]

    def __post_init__(self):
        if len(self.labels) != len(self.cuts) + 1 or sorted(self.cuts) != self.cuts:
            raise ValueError("bins needs ascending cuts, and one label more than cuts")

    def value(self, value) -> str | None:
        if value == "":
            return None
        low, high = bisect.bisect_left(self.cuts, float(value)), bisect.bisect_right(self.cuts, float(value))
        return self.labels[high if high <= len(self.cuts) / 2 else low]


@dataclass(frozen=True, kw_only=True)
class MatchLabels(ColumnDerivation):
    """A free text or a code -> one of a few labels, or nothing.

    Args:
        labels (`dict`): label -> regular expression, or list of them, that matches a part of the text in full, in any case.
        separator (`str`, *optional*): regular expression of what stands between the parts of one text. Parts that match
            nothing are passed over; a text whose parts match different labels has none.
    """

    labels: dict[str, str | list[str]]
    separator: str | None = None

    @functools.cached_property
    def patterns(self) -> dict[str, re.Pattern]:
        return {
            label: re.compile(
                "|".join(f"(?:{p})" for p in ([patterns] if isinstance(patterns, str) else patterns)), re.I
            )
            for label, patterns in self.labels.items()
        }

    def __post_init__(self):
        try:
            re.compile(self.separator or "")
            self.patterns  # noqa: B018  a mistake in them should show at once
        except re.error as error:
            raise ValueError(f"match_labels has something that is no regular expression ({error})") from error

    def value(self, value) -> str | None:
        parts = re.split(self.separator, str(value)) if self.separator else [str(value)]
        found = {
            label for part in parts for label, pattern in self.patterns.items() if pattern.fullmatch(part.strip())
        }
        return found.pop() if len(found) == 1 else None


@dataclass(frozen=True, kw_only=True)
class TextBeside(ColumnDerivation):
    """The text in a file of a recording's name.

    Args:
        folder (`str`): where it lies, seen from the recording's folder.
        suffix (`str`, *optional*, defaults to `".txt"`): its ending.
    """

    bound: ClassVar[bool] = True

    column: str = "audio"
    folder: str = "."
    suffix: str = ".txt"

    def value(self, value: str) -> str | None:
        file = Path(value).parent / self.folder / (Path(value).stem + self.suffix)
        return " ".join(file.read_text(encoding="utf-8").split()) or None if file.is_file() else None
