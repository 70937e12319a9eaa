"""Keywords of a transcript, and questions whether one is said."""

import functools
import itertools
import random
import re
from dataclasses import dataclass
from typing import ClassVar

from ..rows import RejectedRow, Row
from .base import ColumnDerivation, Derivation


@dataclass(frozen=True, kw_only=True)
class Keywords(ColumnDerivation):
    """The keywords of a transcript, most telling first, in lower case; found by YAKE.

    YAKE looks at one text alone, by statistics and a list of stop words: it needs no model, gives the same every time and
    takes a millisecond. (The paper uses a T5 that was trained to write keywords.)

    Args:
        number (`int`, *optional*, defaults to 3): at most so many.
        words (`int`, *optional*, defaults to 2): longest keyword.
        language (`str`, *optional*, defaults to `"en"`): whose stop words are left out.
    """

    into: str = "keywords"
    number: int = 3
    words: int = 2
    language: str = "en"

    @functools.cached_property
    def extractor(self):
        try:
            import yake
        except ImportError as error:
            raise ImportError('keywords are found by YAKE: pip install "speechverse[data]", or yake') from error
        return yake.KeywordExtractor(lan=self.language, n=self.words, top=self.number)

    @functools.cached_property
    def _known(self) -> dict[str, list[str]]:
        return {}

    def value(self, value: str) -> list[str]:
        if value not in self._known:  # a sentence is often said by many
            self._known[value] = self._find(value)
        return list(self._known[value])

    def _find(self, value: str) -> list[str]:
        found = (" ".join(keyword.casefold().split()) for keyword, _ in self.extractor.extract_keywords(value))
        # Kept as far as they stand in the text as they are: YAKE joins words across punctuation.
        return list(dict.fromkeys(keyword for keyword in found if occurs(keyword, value) and "," not in keyword))


@dataclass(frozen=True, kw_only=True)
class KeywordSearch(Derivation):
    """A keyword to look for, and whether it is there.

    Absent ones are what was drawn of the keywords of other rows, and each is used as often as it was drawn: a keyword is
    there as often as another, however frequent it is, and does not give the answer away.

    Args:
        text, keywords (`str`, *optional*): columns read.
        keyword, answer (`str`, *optional*): columns made; the answer is `yes` or `no`. Both are `None` where a row has no
            keywords of its own, or none is found that is not there.
        share (`float`, *optional*, defaults to 0.7): how often the keyword is there.
        seed (`int`, *optional*, defaults to 0): with the keys and the order of the rows it says what is drawn.
        pool (`int`, *optional*, defaults to 1000): so many rows that follow each other lend each other keywords.
    """

    bound: ClassVar[bool] = True

    text: str = "text"
    keywords: str = "keywords"
    keyword: str = "keyword"
    answer: str = "keyword_present"
    share: float = 0.7
    seed: int = 0
    pool: int = 1000

    @property
    def inputs(self):
        return (self.text, self.keywords)

    @property
    def outputs(self):
        return (self.keyword, self.answer)

    def apply(self, rows, train_rows):
        rows = iter(rows)
        while chunk := list(itertools.islice(rows, self.pool)):
            good = [row for row in chunk if not isinstance(row, RejectedRow)]
            drawn = iter(self._draw(good))
            for row in chunk:
                yield row if isinstance(row, RejectedRow) else row | next(drawn)

    def _draw(self, rows: list[Row]) -> list[Row]:
        draws = [random.Random(f"{self.seed} {row['key']}") for row in rows]
        present = [draw.random() < self.share for draw in draws]
        own = [
            draw.choice(row[self.keywords]) if row[self.keywords] else None
            for draw, row in zip(draws, rows, strict=True)
        ]
        lent = self._exchange(rows, own, [i for i, there in enumerate(present) if not there and own[i] is not None])
        drawn = []
        for index, there in enumerate(present):
            keyword = own[index] if there else lent.get(index)
            drawn.append({self.keyword: keyword, self.answer: keyword and ("yes" if there else "no")})
        return drawn

    def _exchange(self, rows: list[Row], own: list[str | None], takers: list[int]) -> dict[int, str]:
        """The takers' own keywords, each given to one whose text does not have it, as far as that can be done."""
        texts = {index: _normal(rows[index][self.text] or "") for index in takers}
        given = {index: own[index] for index in takers}

        def fits(taker: int, keyword: str) -> bool:
            # Nor inside a longer word: `cat` is no fair negative for `cats`.
            return _normal(keyword) not in texts[taker]

        for index in takers:
            draw = random.Random(f"{self.seed} {rows[index]['key']} exchange")
            for _ in range(100):  # two who fit each other are found by a handful of draws
                if fits(index, given[index]):
                    break
                other = draw.choice(takers)
                # The other one may be as badly off as before, but not worse.
                if fits(index, given[other]) and (fits(other, given[index]) or not fits(other, given[other])):
                    given[index], given[other] = given[other], given[index]
        pool = [keyword for keyword in own if keyword is not None]
        for index in takers:
            draw = random.Random(f"{self.seed} {rows[index]['key']} pool")
            for _ in range(100):  # too few takers, or all of them say the same: what anybody has
                if fits(index, given[index]):
                    break
                given[index] = draw.choice(pool)
        return {index: keyword for index, keyword in given.items() if fits(index, keyword)}


def occurs(keyword: str, text: str) -> bool:
    """Whether a keyword's words stand in a text, whole and in order, in any case and with any punctuation between."""
    return f" {_normal(keyword)} " in f" {_normal(text)} "


def _normal(text: str) -> str:
    return " ".join(re.findall(r"\w+(?:['’]\w+)*", text.casefold()))
