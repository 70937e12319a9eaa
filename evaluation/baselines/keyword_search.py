"""The paper's baseline of keyword search: a substring of what a speech recogniser writes."""

from ...training.data.sample import Sample
from ..corpus_metric import load_metric
from ..suite import LoadedRow
from .speech_recognition import RecogniserSystem


KWS = "kws"
KEYWORD = "keyword"
FOUND, NOT_FOUND = "yes", "no"  # the task's labels


def is_said(keyword: str, transcript: str, normalise) -> bool:
    """Whether a keyword is a substring of a transcript when both are normalised.

    It may begin or end within a word: *art* is in *party*. The paper says substring, and no more.

    Args:
        keyword, transcript (`str`): the texts.
        normalise (`Callable[[str], str]`): applied to both. A keyword of which it leaves nothing, such as a filled pause, is
            looked for as it is, in any case.
    """
    wanted = normalise(keyword)
    if not wanted:
        return keyword.casefold() in transcript.casefold()
    return wanted in normalise(transcript)


class KeywordSearchSystem(RecogniserSystem):
    """Looks for keywords in a recogniser's hypotheses, both normalised as for the word error rate; see [`is_said`]."""

    kind = "keyword_search"

    def describe(self) -> dict:
        asr = self.recogniser.describe()
        return {"name": f"{asr['name']} -> substring", "model": None, "fingerprint": asr["fingerprint"], "asr": asr}

    def why_not(self, row: LoadedRow) -> str | None:
        sample = row.samples[0]
        if sample.tasks != (KWS,) or row.row.instruction is not None or KEYWORD not in (sample.values or {}):
            return "keyword search only tells whether a keyword is said"
        if sample.labels and {FOUND, NOT_FOUND} - sample.labels.keys():
            return f"keyword search answers {FOUND} or {NOT_FOUND}, and this row wants {' or '.join(sample.labels)}"
        return None

    def answer(self, samples: list[Sample], row: LoadedRow) -> list[dict]:
        normalise = load_metric("wer").normalise
        answers = [
            FOUND if is_said(sample.values[KEYWORD], text, normalise) else NOT_FOUND
            for sample, text in zip(samples, self.hypotheses.of(samples), strict=True)
        ]
        return [{"text": answer, "answer": answer} for answer in answers]
