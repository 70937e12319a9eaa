"""What every derivation is."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from ..rows import RejectedRow, Row


@dataclass(frozen=True, kw_only=True)
class Derivation:
    """Makes columns out of columns.

    Attributes:
        inputs, outputs (`tuple[str, ...]`): columns that it reads and makes. One whose columns nobody asks for is not run,
            unless it makes `start` and `end`: other rows.
    """

    # Whether it takes more than a row: files beside the recording, other rows, the training split. Shards hold what it makes.
    bound: ClassVar[bool] = False

    @property
    def inputs(self) -> tuple[str, ...]:
        raise NotImplementedError

    @property
    def outputs(self) -> tuple[str, ...]:
        raise NotImplementedError

    def apply(self, rows: Iterable[Row | RejectedRow], train_rows: Callable) -> Iterator[Row | RejectedRow]:
        """The rows with the new columns.

        Args:
            rows: what comes in; rejected rows go through as they are.
            train_rows (`Callable`): gives the training split as it comes in here.
        """
        for row in rows:
            if isinstance(row, RejectedRow):
                yield row
                continue
            try:
                yield row | self.row(row)
            except (
                ValueError,
                KeyError,
                TypeError,
                AttributeError,
            ) as error:  # of a column that is not as it should be
                yield RejectedRow(row["key"], f"{type(self).__name__} of {', '.join(self.inputs)}: {error!r}")

    def row(self, row: Row) -> Row:
        """The new columns of one row; `None` where there is nothing to say.

        Raises:
            ValueError: if the row is no good for anything.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class ColumnDerivation(Derivation):
    """Makes one column of another.

    Args:
        column (`str`): what is read.
        into (`str`, *optional*): what is made; by default it takes the column's place.
    """

    column: str
    into: str | None = None

    @property
    def inputs(self):
        return (self.column,)

    @property
    def outputs(self):
        return (self.into or self.column,)

    def row(self, row: Row) -> Row:
        value = row[self.column]
        return {self.outputs[0]: None if value is None else self.value(value)}

    def value(self, value):
        raise NotImplementedError
