"""What a free answer has to be like to pass: rules that a suite's row names under `passes`, all of which have to hold.

    passes:
      punctuated: {max_wer: 0.5}
      contains: {slot: room}

They look at the answer's text and at what the corpus knows of the recording. A rule says less than a reader would: an answer
that passes may still be a poor one.
"""

import functools
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from ..training.data.rows import text_of
from ..training.data.sample import Sample
from ..training.data.strict import build


class Criterion(ABC):
    """One rule."""

    @abstractmethod
    def passes(self, text: str, sample: Sample) -> bool:
        """Whether an answer about a sample keeps to it."""

    def lacks(self, sample: Sample) -> str | None:
        """What it would have to know of a sample and does not; `None` if it can be applied."""
        return None


class TranscriptCriterion(Criterion):
    """A rule that compares the answer with the recording's words."""

    def lacks(self, sample: Sample) -> str | None:
        return None if words_of(sample.transcript or "") else "a transcript"


@dataclass(frozen=True)
class Transcribes(TranscriptCriterion):
    """The words that were said, without regard to case and punctuation.

    Args:
        max_wer (`float`, *optional*, defaults to 0.5): highest word error rate against the transcript.
    """

    max_wer: float = 0.5

    def __post_init__(self):
        _refuse_below_zero("max_wer", self.max_wer)

    def passes(self, text: str, sample: Sample) -> bool:
        return word_error_rate(text, sample.transcript) <= self.max_wer


@dataclass(frozen=True)
class Punctuated(TranscriptCriterion):
    """The words that were said, written as sentences: the answer ends with `.`, `?`, `!` or an ellipsis.

    Args:
        max_wer (`float`, *optional*, defaults to 0.5): highest word error rate against the transcript, without regard to case
            and punctuation.
        capitals (`bool`, *optional*, defaults to `False`): whether it has to begin with a capital letter, too.
    """

    max_wer: float = 0.5
    capitals: bool = False

    def __post_init__(self):
        _refuse_below_zero("max_wer", self.max_wer)

    def passes(self, text: str, sample: Sample) -> bool:
        text = text.strip()
        ends = re.search(r"[.?!…][\"'”’)]*$", text) is not None
        begins = not self.capitals or text.lstrip("\"'“‘(¿¡")[:1].isupper()
        return ends and begins and word_error_rate(text, sample.transcript) <= self.max_wer


@dataclass(frozen=True)
class Contains(Criterion):
    """Words that the answer has to hold, whole and in their order, in any case. Exactly one of these says which.

    Args:
        phrase (`str` or `list[str]`, *optional*): these.
        slot (`str`, *optional*): the values of the slots of this label, of a view whose answer are slots.
        answer (`bool`, *optional*): the sample's answer, or each of its keywords.
        value (`str`, *optional*): what this `{name}` in the prompts stands for, such as `keyword`.
        at_least (`int`, *optional*): so many of them; by default all.
    """

    phrase: str | list[str] | None = None
    slot: str | None = None
    answer: bool = False
    value: str | None = None
    at_least: int | None = None

    def __post_init__(self):
        given = [name for name in ("phrase", "slot", "answer", "value") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"{' and '.join(given) or 'nothing'} is given; give one of phrase, slot, answer, value.")
        if self.at_least is not None and self.at_least < 1:
            raise ValueError(f"key at_least is {self.at_least}; it is at least 1.")

    def passes(self, text: str, sample: Sample) -> bool:
        wanted = self._wanted(sample)
        spoken = f" {' '.join(words_of(text))} "
        found = sum(f" {' '.join(words_of(phrase))} " in spoken for phrase in wanted)
        return found >= (len(wanted) if self.at_least is None else min(self.at_least, len(wanted)))

    def lacks(self, sample: Sample) -> str | None:
        if self._wanted(sample):
            return None
        if self.slot:
            return f"a slot {self.slot}"
        return f"a value {self.value}" if self.value else "an answer in words"

    def _wanted(self, sample: Sample) -> list[str]:
        if self.phrase:
            wanted = [self.phrase] if isinstance(self.phrase, str) else self.phrase
        elif self.slot:
            slots = sample.answer if isinstance(sample.answer, list) else []
            wanted = [slot["value"] for slot in slots if isinstance(slot, dict) and slot["label"] == self.slot]
        elif self.value:
            wanted = [text_of((sample.values or {}).get(self.value))]
        else:
            answers = sample.answer if isinstance(sample.answer, list) else [sample.answer]
            wanted = [answer for answer in answers if isinstance(answer, str)]
        return [phrase for phrase in wanted if words_of(phrase)]


@dataclass(frozen=True)
class Label(Criterion):
    """Names the sample's class, and no other of its classes. `_` in a label may be written as a space."""

    def passes(self, text: str, sample: Sample) -> bool:
        labels = {" ".join(words_of(label)): label for label in sample.labels}
        # The longest first: "not speech" names no "speech".
        longest_first = sorted(filter(None, labels), key=len, reverse=True)
        pattern = rf"(?<!\S)(?:{'|'.join(map(re.escape, longest_first))})(?!\S)"
        return {labels[named] for named in re.findall(pattern, " ".join(words_of(text)))} == {sample.answer}

    def lacks(self, sample: Sample) -> str | None:
        return None if isinstance(sample.answer, str) and sample.answer in (sample.labels or {}) else "classes"


@dataclass(frozen=True)
class ShorterThanTranscript(TranscriptCriterion):
    """Fewer words than were said, and at least one.

    Args:
        share (`float`, *optional*, defaults to 0.7): at most this share of the transcript's words; above 0, below 1. One
            word is always few enough.
    """

    share: float = 0.7

    def __post_init__(self):
        if not 0 < self.share < 1:
            raise ValueError(f"key share is {self.share}; it is above 0 and below 1.")

    def passes(self, text: str, sample: Sample) -> bool:
        return 1 <= len(words_of(text)) <= max(1, self.share * len(words_of(sample.transcript)))


@dataclass(frozen=True)
class DiffersFromTranscript(TranscriptCriterion):
    """Something is answered, and it is not what was said.

    Args:
        min_wer (`float`, *optional*, defaults to 0.5): lowest word error rate against the transcript, without regard to case
            and punctuation.
    """

    min_wer: float = 0.5

    def __post_init__(self):
        _refuse_below_zero("min_wer", self.min_wer)

    def passes(self, text: str, sample: Sample) -> bool:
        return bool(words_of(text)) and word_error_rate(text, sample.transcript) >= self.min_wer


@dataclass(frozen=True)
class NumberOfWords(Criterion):
    """As many words as were asked for.

    Args:
        at_least (`int`, *optional*, defaults to 1): so many.
        at_most (`int`, *optional*): no more than so many.
    """

    at_least: int = 1
    at_most: int | None = None

    def __post_init__(self):
        if self.at_least < 0 or self.at_most is not None and self.at_most < self.at_least:
            raise ValueError(f"keys at_least and at_most are {self.at_least} and {self.at_most}; none would do.")

    def passes(self, text: str, sample: Sample) -> bool:
        number = len(words_of(text))
        return self.at_least <= number and (self.at_most is None or number <= self.at_most)


@dataclass(frozen=True)
class FewRepetitions(Criterion):
    """Does not go round in circles, as models do that have lost the thread.

    Args:
        distinct (`float`, *optional*, defaults to 0.8): at least this share of its pairs of neighbouring words are different
            ones, 0 to 1. One word, or none, is no circle.
    """

    distinct: float = 0.8

    def __post_init__(self):
        if not 0 <= self.distinct <= 1:
            raise ValueError(f"key distinct is {self.distinct}; it is a share from 0 to 1.")

    def passes(self, text: str, sample: Sample) -> bool:
        words = words_of(text)
        pairs = list(zip(words, words[1:], strict=False))
        return len(set(pairs)) >= self.distinct * len(pairs)


@dataclass(frozen=True)
class Language(Criterion):
    """Is written in a language, as py3langid tells it from some others by the letters. A word or two may be in several.

    Args:
        code (`str`): ISO 639-1 code, such as `es`.
        among (`list[str]`, *optional*): the languages to tell it from; by default those of western Europe that the paper's
            tasks and the TTS voices have.
    """

    code: str
    among: list[str] = field(default_factory=lambda: ["ca", "de", "en", "es", "fr", "it", "pt", "ro"])

    def __post_init__(self):
        _identifier((self.code, *self.among))  # a code that it does not know is refused at once

    def passes(self, text: str, sample: Sample) -> bool:
        return bool(words_of(text)) and _identifier((self.code, *self.among)).classify(text)[0] == self.code


CRITERIA: dict[str, type[Criterion]] = {
    "contains": Contains,
    "differs_from_transcript": DiffersFromTranscript,
    "few_repetitions": FewRepetitions,
    "label": Label,
    "language": Language,
    "punctuated": Punctuated,
    "shorter_than_transcript": ShorterThanTranscript,
    "transcribes": Transcribes,
    "words": NumberOfWords,
}


@dataclass(frozen=True)
class Criteria:
    """Rules of which all have to hold.

    Args:
        rules (`dict[str, Criterion]`): by their names.
    """

    rules: dict[str, Criterion]

    def passes(self, text: str, sample: Sample) -> bool:
        return not self.failed(text, sample)

    def failed(self, text: str, sample: Sample) -> list[str]:
        """Names of the rules that an answer does not keep to."""
        return [name for name, rule in self.rules.items() if not rule.passes(text, sample)]

    def lacks(self, sample: Sample) -> str | None:
        """What would have to be known of a sample and is not, and by which rule; `None` if all can be applied."""
        for name, rule in self.rules.items():
            if lacking := rule.lacks(sample):
                return f"{name} needs {lacking}"
        return None


def parse_criteria(values: dict) -> Criteria:
    """Reads what stands under `passes`.

    Args:
        values (`dict`): a rule's name -> its options; `null` and `{}` are none.

    Raises:
        ImportError: if a package that a rule needs is not installed.
        ValueError: if there is no such rule, or it does not take these options.
    """
    if not isinstance(values, dict) or not values:
        raise ValueError(f"key passes is {values!r}; it is a mapping of {', '.join(CRITERIA)} to their options.")
    if unknown := [name for name in values if name not in CRITERIA]:
        raise ValueError(f"key passes names the criterion {unknown[0]!r}; known are {', '.join(CRITERIA)}.")
    return Criteria(
        {
            name: build(CRITERIA[name], {} if options is None else options, f"key passes.{name}")
            for name, options in values.items()
        }
    )


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case, without punctuation."""
    return re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text.casefold())


def word_error_rate(text: str, transcript: str) -> float:
    """Substituted, missing and added words, per word of the transcript.

    Raises:
        ImportError: if jiwer is not installed.
    """
    try:
        import jiwer
    except ImportError as error:
        raise ImportError('words are compared by jiwer: pip install "speechverse[eval]", or jiwer') from error
    return jiwer.wer(" ".join(words_of(transcript)), " ".join(words_of(text)))


@functools.cache
def _identifier(languages: tuple[str, ...]):
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise ImportError(
            'languages are told apart by py3langid: pip install "speechverse[eval]", or py3langid'
        ) from error
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    if unknown := sorted(set(languages) - set(identifier.labels)):
        raise ValueError(f"py3langid knows no language {unknown[0]!r}; give ISO 639-1 codes.")
    identifier.set_languages(sorted(set(languages)))
    return identifier


def _refuse_below_zero(name: str, value: float) -> None:
    if value < 0:
        raise ValueError(f"key {name} is {value}; it is at least 0.")
