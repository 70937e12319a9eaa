"""Stretches of longer recordings: rows with `start` and `end`."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import soundfile

from ..recordings import open_file
from ..rows import RejectedRow, Row
from .base import Derivation


HEARD = 0.5  # s of each turn of a stretch that are in it at least, whatever is cut off


@dataclass(frozen=True, kw_only=True)
class Windows(Derivation):
    """Cuts a long recording into pieces: rows with `start` and `end`, `key` with the piece's number.

    Args:
        seconds (`float`): length of a piece; what remains at the end is one if it has half that.
    """

    bound: ClassVar[bool] = True

    seconds: float

    @property
    def inputs(self):
        return ("audio",)

    @property
    def outputs(self):
        return ("start", "end")

    def apply(self, rows, train_rows):
        for row in rows:
            if isinstance(row, RejectedRow):
                yield row
                continue
            try:
                with open_file(row["audio"]) as file:
                    length = file.frames / file.samplerate
            except (OSError, soundfile.LibsndfileError) as error:
                yield RejectedRow(row["key"], f"unreadable: {error}")
                continue
            pieces = max(1, int(length / self.seconds + 0.5))
            for piece in range(pieces):
                start = piece * self.seconds
                end = min(start + self.seconds, length)
                yield row | {"start": start, "end": end, "key": f"{row['key']}-{piece}"}


@dataclass(frozen=True, kw_only=True)
class SpeakerCount(Derivation):
    """Turns of a conversation -> stretches in which one speaker is heard, or two.

    Of turns that follow each other without a long gap half are joined, whether one speaker has both or two have one each; a
    turn that is not joined is a stretch with one speaker. Nobody else talks meanwhile. Stretches of one and of two speakers
    are then matched within a conversation, the longest with the longest, and both are cut to a length that is drawn for the
    two of them: neither a stretch's length nor where it begins in a turn tells how many speakers it has. What finds no match
    is left out. No two stretches overlap.

    Args:
        speaker (`str`, *optional*): column that tells the two sides of a conversation apart.
        into (`str`, *optional*): column made: `one` or `two`.
        gap (`float`, *optional*, defaults to 1.0): longest silence between turns that are joined, s.
        shortest, longest (`float`, *optional*): bounds of a stretch, s.
        seed (`int`, *optional*, defaults to 0): with a row's key it says what is joined and cut.
    """

    bound: ClassVar[bool] = True

    speaker: str = "speaker"
    into: str = "speakers"
    gap: float = 1.0
    shortest: float = 1.0
    longest: float = 30.0
    seed: int = 0

    @property
    def inputs(self):
        return ("audio", "start", "end", self.speaker)

    @property
    def outputs(self):
        return ("start", "end", self.into)

    def apply(self, rows, train_rows):
        for audio, turns in itertools.groupby(rows, key=lambda row: isinstance(row, dict) and row["audio"]):
            if audio is False:
                yield from turns
                continue
            good = []
            for row in turns:
                try:
                    good.append(row | {"start": float(row["start"]), "end": float(row["end"])})
                except (KeyError, TypeError, ValueError):
                    yield RejectedRow(row["key"], f"no times: start {row.get('start')!r}, end {row.get('end')!r}")
            yield from self._stretches(sorted(good, key=lambda row: (row["start"], row["end"])))

    def _stretches(self, turns: list[Row]) -> Iterator[Row]:
        heard_until: dict[str, float] = {}  # by whom, in the turns before
        found: dict[str, list[_Stretch]] = {"one": [], "two": []}
        index, last_end = 0, 0.0
        while index < len(turns):
            joined = self._stretch(turns, index, 2, heard_until) if self._may_join(turns, index) else None
            stretch, count = (joined, 2) if joined else (self._stretch(turns, index, 1, heard_until), 1)
            if stretch and stretch.start >= last_end:  # nothing is heard in two stretches
                last_end = stretch.end
                found["one" if stretch.first[self.speaker] == stretch.last[self.speaker] else "two"].append(stretch)
            for turn in turns[index : index + count]:
                heard_until[turn[self.speaker]] = max(heard_until.get(turn[self.speaker], 0.0), turn["end"])
            index += count
        ones, twos = (sorted(kind, key=lambda stretch: -stretch.length) for kind in found.values())
        rows = [row for one, two in zip(ones, twos, strict=False) for row in self._cut(one, two)]
        yield from sorted(rows, key=lambda row: row["start"])

    def _may_join(self, turns: list[Row], index: int) -> bool:
        if index + 1 == len(turns):
            return False
        first, second = turns[index : index + 2]
        drawn = random.Random(f"{self.seed} {first['key']}").random() < 0.5
        return second["start"] - first["end"] <= self.gap and drawn

    def _stretch(self, turns: list[Row], index: int, count: int, heard_until: dict[str, float]) -> "_Stretch | None":
        """The stretch of some turns, unless it is too short, or somebody else is heard in it."""
        own = turns[index : index + count]
        stretch = _Stretch(own[0], own[-1])
        if stretch.length < self.shortest or min(turn["end"] - turn["start"] for turn in own) < HEARD:
            return None
        heard = {speaker for speaker, until in heard_until.items() if until > stretch.start}
        following = itertools.islice(turns, index + count, None)
        heard |= {
            turn[self.speaker] for turn in itertools.takewhile(lambda turn: turn["start"] < stretch.end, following)
        }
        return None if heard - {turn[self.speaker] for turn in own} else stretch

    def _cut(self, one: "_Stretch", two: "_Stretch") -> list[Row]:
        """Both, cut to one length; none if that cannot be."""
        draw = random.Random(f"{self.seed} {one.first['key']} {two.first['key']}")
        most = min(one.length, two.length, self.longest)
        least = max(one.least, two.least, self.shortest)
        if least > most:
            return []
        length = draw.uniform(max(least, most / 2), most)
        return [
            stretch.first | {"start": start, "end": min(start + length, stretch.end), self.into: kind}
            for stretch, kind in ((one, "one"), (two, "two"))
            for start in [draw.uniform(*stretch.starts(length))]
        ]


class _Stretch(NamedTuple):
    """From the start of a turn to the end of the next; or one turn, which is then both."""

    first: Row
    last: Row

    @property
    def start(self) -> float:
        return self.first["start"]

    @property
    def end(self) -> float:
        return max(self.first["end"], self.last["end"])

    @property
    def length(self) -> float:
        return self.end - self.start

    @property
    def least(self) -> float:
        """The shortest part in which both turns are sure to be heard, s."""
        return max(HEARD, self.last["start"] - self.first["end"] + 2 * HEARD) if self.first is not self.last else 0.0

    def starts(self, length: float) -> tuple[float, float]:
        """The earliest and the latest start of a part of a length, so that both turns are heard."""
        earliest = max(self.start, self.last["start"] + HEARD - length)
        latest = min(self.first["end"] - HEARD, self.last["end"] - HEARD, self.end - length)
        return earliest, max(earliest, latest)
