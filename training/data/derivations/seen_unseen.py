"""Classes that are trained on, and classes that are kept for tests."""

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from ..rows import RejectedRow, Row
from .base import Derivation


@dataclass(frozen=True, kw_only=True)
class SeenUnseen(Derivation):
    """Which classes are trained on: the most frequent ones of the training split. Ties go by the alphabet.

    Args:
        column (`str`): a class, or slots.
        most_frequent (`int`): how many classes are seen.
        into (`str`): is made `seen` or `unseen`; for slots also `mixed`, where a sentence has both, and `none`.
        classes (`str`): is made the list of the classes of the row's group: those that a prompt may list. Rows that are
            `mixed` or `none` have all of them. A row whose class training never had is rejected: listed for that row
            alone the class would give the answer away.
    """

    bound: ClassVar[bool] = True

    column: str
    most_frequent: int
    into: str
    classes: str

    @property
    def inputs(self):
        return (self.column,)

    @property
    def outputs(self):
        return (self.into, self.classes)

    def apply(self, rows, train_rows):
        counts = Counter(
            label for row in train_rows() if not isinstance(row, RejectedRow) for label in self._labels(row)
        )
        if not counts:
            raise ValueError(f"seen_unseen: no row of the training split has {self.column}.")
        by_frequency = sorted(counts, key=lambda label: (-counts[label], label))
        seen, rare = sorted(by_frequency[: self.most_frequent]), sorted(by_frequency[self.most_frequent :])
        every = sorted(counts)
        for row in rows:
            if isinstance(row, RejectedRow):
                yield row
                continue
            labels = set(self._labels(row))
            if new := sorted(labels - counts.keys()):
                yield RejectedRow(row["key"], f"unknown class: {self.column} {', '.join(new)} is not in training")
                continue
            groups = {"seen" if label in seen else "unseen" for label in labels}
            group = "none" if not groups else groups.pop() if len(groups) == 1 else "mixed"
            yield row | {self.into: group, self.classes: {"seen": seen, "unseen": rare}.get(group, every)}

    def _labels(self, row: Row) -> list[str]:
        value = row[self.column]
        if isinstance(value, list):
            return [slot["label"] for slot in value]
        return [] if value is None else [value]
