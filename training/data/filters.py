"""Which samples can be learned from: the paper's filter, and all that is broken. Nothing is left out without a reason."""

import unicodedata
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...processing.audio_speechverse import MIN_SECONDS
from ...processing.tasks_speechverse import TaskBank
from .inspection import FactsCache, RecordingFacts, inspect_recordings
from .recordings import audio_name
from .sample import Sample
from .transcripts import fault_of_transcript


# -80 dB of full scale. Digital silence decodes to 0 with every codec, with dither of one 16-bit step to less than 0.9e-4;
# the most quiet of 4,220 real clips (whispered RAVDESS speech) has a peak of 40e-4.
SILENCE = 1e-4
# The paper drops what is longer than 900 and 600, and gives no units.
MAX_AUDIO_TOKENS = 900  # projected frames: 72 s at 12.5 Hz
MAX_LABEL_TOKENS = 600  # the LLM's own, with the one that ends the answer
NUM_LOST_SHOWN = 5  # characters that one reason names
NO_TASK = "no task"
# A row's own duration may be rounded, or that of a recording before it was compressed.
DURATION_TOLERANCE = 0.1  # s
DURATION_TOLERANCE_SHARE = 0.02


class LabelTokens(NamedTuple):
    """What the LLM's tokenizer makes of an answer.

    Args:
        count (`int`): its tokens, as many as `labels` has.
        lost (`list[str]`): the characters that it has no token for, each once.
    """

    count: int
    lost: list[str]


@dataclass(frozen=True)
class FilterRules:
    """What a sample has to be like.

    Args:
        processor ([`SpeechVerseProcessor`], *optional*): the model's: it knows how long a recording the encoder takes, and
            counts frames and tokens. Without one these are not looked at.
        tasks ([`TaskBank`], *optional*): their labels; by default answers are not compared with any.
        max_audio_tokens (`int`, *optional*, defaults to 900): most projected frames of a recording; `None`: no bound.
        max_label_tokens (`int`, *optional*, defaults to 600): most tokens of an answer; `None`: no bound.
        silence (`float`, *optional*, defaults to 1e-4): a recording whose peak is below is silent; `None` keeps it, as
            whoever tests what a model makes of silence needs.
        keep_unwritable (`bool`, *optional*): keep an answer with characters that the LLM has no token for, which is
            learned as `<unk>`. By default it is dropped, unless `max_label_tokens` is `None`: then answers are only
            compared with.
        text_alone (`bool`, *optional*, defaults to `False`): transcripts stand in for the recordings, which are not opened;
            a sample has to have one.
    """

    processor: object = None
    tasks: TaskBank | None = None
    max_audio_tokens: int | None = MAX_AUDIO_TOKENS
    max_label_tokens: int | None = MAX_LABEL_TOKENS
    silence: float | None = SILENCE
    keep_unwritable: bool | None = None
    text_alone: bool = False

    def fault_of_label(self, sample: Sample, tokens: LabelTokens | None) -> str | None:
        """Why an answer cannot be learned from its instruction; `None` if it can.

        Args:
            sample ([`Sample`]): the sample.
            tokens ([`LabelTokens`], *optional*): of its target.
        """
        if not sample.target.strip():
            return "empty label"
        if self.text_alone and (fault := fault_of_transcript(sample, self.processor)):
            return fault
        if self.processor is not None and (fault := _fault_of_placeholders(sample, self.processor.audio_token)):
            return fault
        if tokens is not None and self.max_label_tokens is not None and tokens.count > self.max_label_tokens:
            return f"too many label tokens: {tokens.count}, at most {self.max_label_tokens}"
        keep_unwritable = self.max_label_tokens is None if self.keep_unwritable is None else self.keep_unwritable
        if tokens is not None and tokens.lost and not keep_unwritable:
            shown, more = tokens.lost[:NUM_LOST_SHOWN], len(tokens.lost) - NUM_LOST_SHOWN
            listed = ", ".join(map(repr, shown)) + (f" and {more} more" if more > 0 else "")
            return f"unwritable label: {listed} {'has' if len(tokens.lost) == 1 else 'have'} no token"
        if self.tasks is None or sample.task not in self.tasks:
            return None
        task = self.tasks[sample.task]
        parsed = task.parse(sample.target, sample.labels or None)
        if parsed.unread:
            return f"bad label: {parsed.unread[0][:80]!r} cannot be an answer of task {task.id}"
        if task.answer_type == "label" and parsed.answer != sample.target:
            return f"bad label: {sample.target[:80]!r} is written {parsed.answer!r} in task {task.id}"
        return None

    def fault_of_recording(
        self, facts: RecordingFacts, num_tokens: int | None, row_seconds: float | None
    ) -> str | None:
        """Why a recording cannot be learned from; `None` if it can.

        Args:
            facts ([`RecordingFacts`]): what was heard.
            num_tokens (`int`, *optional*): its projected frames.
            row_seconds (`float`, *optional*): how long it should be.
        """
        if facts.fault is not None:
            return facts.fault
        min_seconds = MIN_SECONDS if self.processor is None else self.processor.min_audio_seconds
        max_seconds = None if self.processor is None else self.processor.max_audio_seconds
        if facts.seconds < min_seconds:
            return f"too short: {facts.seconds:.3f} s, at least {min_seconds:g} s"
        if row_seconds is not None:
            tolerance = max(DURATION_TOLERANCE, DURATION_TOLERANCE_SHARE * row_seconds)
            if abs(facts.seconds - row_seconds) > tolerance:
                return f"another length: {facts.seconds:.2f} s, but its row says {row_seconds:.2f} s"
        if self.silence is not None and facts.peak < self.silence:
            return f"silent: peak {facts.peak:.1e}, at least {self.silence:.1e}"
        if max_seconds is not None and facts.seconds > max_seconds:
            return f"too long: {facts.seconds:.1f} s, at most {max_seconds:g} s"
        if num_tokens is not None and num_tokens < 1:
            return f"too short: the encoder makes no frame of {facts.seconds:.3f} s"
        if num_tokens is not None and self.max_audio_tokens is not None and num_tokens > self.max_audio_tokens:
            return f"too many frames: {num_tokens} projected ones, at most {self.max_audio_tokens}"
        return None


class CheckedSample(NamedTuple):
    """A sample, and what the filter found.

    Args:
        sample ([`Sample`]): the sample.
        fault (`str`, *optional*): why it cannot be used, its kind before a colon; `None`: it can.
        seconds (`float`, *optional*): of the recording, where it could be decoded; where it was not to be, as its corpus
            states it.
        audio_tokens, label_tokens (`int`, *optional*): projected frames of the recording, tokens of the answer; `None`
            where they were not counted.
    """

    sample: Sample
    fault: str | None
    seconds: float | None = None
    audio_tokens: int | None = None
    label_tokens: int | None = None

    @property
    def name(self) -> str:
        """What to count it under: the view of its corpus, or its task."""
        return self.sample.name or NO_TASK

    def as_row(self) -> dict:
        """How a report lists it."""
        sample = self.sample
        return {
            "corpus": sample.corpus,
            "split": sample.split,
            "key": sample.key,
            "audio": audio_name(sample.audio),
            "task": sample.task,
            "reason": self.fault,
        }


def check_samples(
    samples: list[Sample], rules: FilterRules, workers: int | None = None, cache: FactsCache | None = None
) -> list[CheckedSample]:
    """Looks at every sample; each recording is decoded once, on all cores.

    Args:
        samples (`list[Sample]`): the samples.
        rules ([`FilterRules`]): what they have to be like.
        workers (`int`, *optional*): processes; by default one for each core that may be used.
        cache ([`FactsCache`], *optional*): what is known of their recordings.

    Returns:
        one [`CheckedSample`] for each, in their order. Of several faults the first is told, the label's before the
        recording's.
    """
    label_tokens = _tokenize_labels(samples, rules.processor)
    label_faults = [rules.fault_of_label(*pair) for pair in zip(samples, label_tokens, strict=True)]
    if rules.text_alone:
        return [
            CheckedSample(sample, fault, sample.duration, None, tokens and tokens.count)
            for sample, fault, tokens in zip(samples, label_faults, label_tokens, strict=True)
        ]
    audios = {_identity(s.audio): s.audio for s, fault in zip(samples, label_faults, strict=True) if fault is None}
    heard = dict(zip(audios, inspect_recordings(list(audios.values()), workers, cache), strict=True))
    checked = []
    for sample, fault, tokens in zip(samples, label_faults, label_tokens, strict=True):
        facts = heard.get(_identity(sample.audio), RecordingFacts(None))
        num_audio_tokens = None
        if facts.seconds is not None and rules.processor is not None:
            num_audio_tokens = count_audio_tokens(rules.processor, facts.seconds)
        if fault is None:
            fault = rules.fault_of_recording(facts, num_audio_tokens, getattr(sample, "duration", None))
        num_label_tokens = None if tokens is None else tokens.count
        checked.append(CheckedSample(sample, fault, facts.seconds, num_audio_tokens, num_label_tokens))
    return checked


def filter_samples(
    samples: list[Sample], rules: FilterRules, workers: int | None = None
) -> tuple[list[Sample], list[dict]]:
    """Like [`check_samples`]: the samples that can be used, in their order, and the rows of a report on the others.

    Raises:
        ValueError: if none can be used.
    """
    checked = check_samples(samples, rules, workers)
    return [one.sample for one in usable(checked)], [one.as_row() for one in checked if one.fault is not None]


def usable(checked: list[CheckedSample]) -> list[CheckedSample]:
    """Those without a fault, in their order.

    Raises:
        ValueError: if there are some, and all have a fault.
    """
    found = [one for one in checked if one.fault is None]
    if checked and not found:
        first = f"{audio_name(checked[0].sample.audio)}: {checked[0].fault}"
        raise ValueError(f"None of the {len(checked)} samples can be used; the first, {first}.")
    return found


def count_audio_tokens(processor, seconds: float) -> int:
    """Projected frames of a recording of that length, which may be less than one."""
    extractor = processor.feature_extractor
    steps = round(seconds * extractor.sampling_rate)
    if processor.audio_input_name == "input_features":
        steps //= extractor.hop_length
    shape_alone = np.broadcast_to(np.float32(0), (1, steps))
    return max(0, processor.num_audio_tokens(processor.audio_input_name, shape_alone))


def _tokenize_labels(samples: list[Sample], processor) -> list[LabelTokens | None]:
    """Each text is tokenized once."""
    if processor is None:
        return [None] * len(samples)
    # One by one: a batch would start the tokenizer's threads, and it then warns in every process forked later.
    tokenizer, with_end = processor.tokenizer, processor.is_encoder_decoder
    by_character = not _is_unknown("a", tokenizer)  # a vocabulary of whole words has no token for any
    loses_newlines = "\n" not in tokenizer.decode(tokenizer("a\nb", add_special_tokens=False).input_ids)
    tokens = {}
    for text in {sample.target for sample in samples}:
        ids = tokenizer(text, add_special_tokens=with_end, verbose=False).input_ids
        lost = []
        if by_character and tokenizer.unk_token_id in ids:
            lost = _lost_characters(text, tokenizer)
        if by_character and loses_newlines and "\n" in text.strip():
            lost.append("\n")
        tokens[text] = LabelTokens(len(ids) + (not with_end), lost)
    return [tokens[sample.target] for sample in samples]


def _is_unknown(character: str, tokenizer) -> bool:
    return tokenizer.unk_token_id in tokenizer(character, add_special_tokens=False).input_ids


def _lost_characters(text: str, tokenizer) -> list[str]:
    """Those of a text with unknown tokens that have none by themselves; where all have, it spells the unknown token."""
    characters = dict.fromkeys(unicodedata.normalize("NFC", text))
    return [one for one in characters if _is_unknown(one, tokenizer)] or [tokenizer.unk_token]


def _fault_of_placeholders(sample: Sample, audio_token: str) -> str | None:
    """Why the placeholders for recordings in a sample cannot be filled; `None` if they can."""
    if audio_token in sample.target:
        return f"placeholder in label: {sample.target[:80]!r} holds {audio_token}, which stands for a recording"
    given = [*(sample.values or {}).values(), *(sample.labels or {}), *(sample.labels or {}).values()]
    for text in map(str, given):
        if audio_token in text:
            return f"placeholder in instruction: {text[:80]!r} holds {audio_token}, which stands for a recording"
    for wording in sample.instructions:
        if wording.count(audio_token) > 1:
            return f"placeholder in instruction: {wording[:80]!r} holds more than one {audio_token}"
    return None


def _identity(audio):
    """Tells recordings apart: a path is the same wherever it stands, a reference only if it is the same object."""
    return audio if isinstance(audio, str) else id(audio)
