"""Labels that a corpus does not hold but its columns do: small functions that a corpus's file names and parametrises.

`derive: [{bins: {column: valence, into: sentiment, cuts: [3, 5], labels: [negative, neutral, positive]}}]` makes a
[`Bins`] of that mapping. Most work row by row; a few make other rows, or look at the whole training split. What is drawn
is a function of a seed and of a row's key, and for those that take other rows (`bound`) of these as well. A new one is a
dataclass and a row of `DERIVATIONS`.

(`intent: ${scenario}_${action}` needs none: `columns` does it. Two speakers in one clip are mixed by `mix_speakers` in
mixing.py.)
"""

from ..strict import build
from .base import Derivation
from .keywords import Keywords, KeywordSearch
from .labels import Bins, Lowercase, MatchLabels, TextBeside
from .seen_unseen import SeenUnseen
from .slots import BracketSlots, ChunkSlots, TokenSlots
from .stretches import SpeakerCount, Windows


DERIVATIONS: dict[str, type[Derivation]] = {
    "lowercase": Lowercase,
    "bins": Bins,
    "match_labels": MatchLabels,
    "text_beside": TextBeside,
    "token_slots": TokenSlots,
    "bracket_slots": BracketSlots,
    "chunk_slots": ChunkSlots,
    "seen_unseen": SeenUnseen,
    "keywords": Keywords,
    "keyword_search": KeywordSearch,
    "windows": Windows,
    "speaker_count": SpeakerCount,
}


def build_derivation(entry, where: str) -> Derivation:
    """A derivation from its entry: a name, or a mapping of one name to its arguments.

    Raises:
        ValueError: if there is no such derivation, or its arguments do not fit.
    """
    if isinstance(entry, str):
        entry = {entry: {}}
    if not isinstance(entry, dict) or len(entry) != 1:
        raise ValueError(f"{where} is {entry!r}; it is a name, or a mapping of one name to its arguments.")
    [(name, arguments)] = entry.items()
    if name not in DERIVATIONS:
        raise ValueError(f"{where}: unknown derivation {name!r}; known are {', '.join(DERIVATIONS)}.")
    return build(DERIVATIONS[name], arguments or {}, f"{where}, {name}")


def needed(derivations: list[Derivation], columns: set[str]) -> list[Derivation]:
    """Those of the derivations that are needed to make some columns."""
    columns, kept = set(columns), []
    for derivation in reversed(derivations):
        if columns & set(derivation.outputs) or "start" in derivation.outputs:
            kept.append(derivation)
            columns |= set(derivation.inputs)
    return kept[::-1]
