"""The notations of slots in published corpora -> `[{"label", "value"}, ...]`."""

import re
from dataclasses import dataclass

from ..rows import Row
from .base import Derivation


@dataclass(frozen=True, kw_only=True)
class TokenSlots(Derivation):
    """SLURP: entities that point at tokens -> slots, whose values are the tokens' lower-cased surfaces, spaced."""

    entities: str = "entities"
    tokens: str = "tokens"
    into: str = "slots"

    @property
    def inputs(self):
        return (self.entities, self.tokens)

    @property
    def outputs(self):
        return (self.into,)

    def row(self, row: Row) -> Row:
        surfaces = {token["id"]: token["surface"].lower() for token in row[self.tokens]}
        slots = [
            {"label": entity["type"], "value": " ".join(surfaces[index] for index in entity["span"])}
            for entity in row[self.entities]
        ]
        return {self.into: slots}


@dataclass(frozen=True, kw_only=True)
class TextAndSlots(Derivation):
    """One column that holds both the sentence and its slots."""

    column: str
    text: str = "text"
    into: str = "slots"

    @property
    def inputs(self):
        return (self.column,)

    @property
    def outputs(self):
        return (self.text, self.into)


@dataclass(frozen=True, kw_only=True)
class BracketSlots(TextAndSlots):
    """`wake me at [time : five am]` -> the sentence, and its slots."""

    def row(self, row: Row) -> Row:
        bracket = r"\[\s*([^\]:]+?)\s*:\s*([^\]]*?)\s*\]"
        slots = [
            {"label": label, "value": " ".join(value.split())}
            for label, value in re.findall(bracket, row[self.column])
        ]
        return {self.text: " ".join(re.sub(bracket, r"\2", row[self.column]).split()), self.into: slots}


@dataclass(frozen=True, kw_only=True)
class ChunkSlots(TextAndSlots):
    """SNIPS: `[{text}, {text, entity}, ...]` -> the sentence, and its slots."""

    def row(self, row: Row) -> Row:
        chunks = row[self.column]
        slots = [
            {"label": chunk["entity"], "value": " ".join(chunk["text"].split())}
            for chunk in chunks
            if "entity" in chunk
        ]
        return {self.text: " ".join("".join(chunk["text"] for chunk in chunks).split()), self.into: slots}
