"""Word error rate: `evaluate.load("evaluation/metrics/wer")`, or `load_metric("wer")`."""

import functools
import re
from importlib.metadata import version

import jiwer
import numpy as np
from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer
from whisper_normalizer.english import EnglishSpellingNormalizer

from speechverse.evaluation.corpus_metric import CorpusMetric


WITHOUT_SPACES = ("ja", "lo", "my", "th", "yue", "zh")  # of these Whisper's authors count characters


@functools.cache
def english_normaliser() -> EnglishTextNormalizer:
    """Whisper's, with its spelling map, which transformers leaves to checkpoints and `whisper-normalizer` carries."""
    return EnglishTextNormalizer(EnglishSpellingNormalizer().mapping)


class Wer(CorpusMetric):
    """Word error rate of a corpus: substituted, deleted and inserted words of all samples by the words of all references.

    Both sides are normalised alike. English by Whisper's normaliser with its map of British to American spellings: lower
    case, no punctuation, no filled pauses, contractions and titles written out, numbers in digits, nothing in brackets. Other
    languages by its basic one: lower case, no punctuation, nothing in brackets; of those written without spaces, each
    character is a word. It also parts words at the vowel signs of Indic scripts.

    It is 0 or more, and above 1 where more is made up than was said. Where no word was said, it is the number of words made up.

    Args:
        language (`str`, *optional*, defaults to `"en"`): two-letter code of what is spoken.

    Raises:
        ValueError: if the language is no code: by any other name English would be normalised as another language.
    """

    metric_name = "wer"
    higher_is_better = False
    answer_type = "text"

    def __init__(self, language: str = "en", **kwargs):
        super().__init__(**kwargs)
        self.language = language.lower()
        if not re.fullmatch("[a-z]{2,3}", self.language):  # Cantonese has three
            raise ValueError(f"The language is {language!r}; it is a two-letter code such as en.")
        if self.language == "en":
            self._normalise = english_normaliser()
            name = f"whisper-english|spelling-map:whisper-normalizer-{version('whisper-normalizer')}"
        else:
            split_letters = self.language in WITHOUT_SPACES
            self._normalise = BasicTextNormalizer(split_letters=split_letters)
            name = "whisper-basic|words:characters" if split_letters else "whisper-basic"
        packages = f"transformers:{version('transformers')}|jiwer:{version('jiwer')}"
        self.signature = f"wer|corpus|language:{self.language}|normaliser:{name}|{packages}"

    def normalise(self, text: str) -> str:
        """The words of a text as they are compared, with one space between."""
        return " ".join(self._normalise(text).split())

    def _count(self, predictions, references):
        """Columns: words that are substituted, deleted, inserted, and words of the reference."""
        rows = []
        for prediction, reference in zip(predictions, references, strict=True):
            words = jiwer.process_words(self.normalise(reference), self.normalise(prediction))
            spoken = words.hits + words.substitutions + words.deletions
            rows.append([words.substitutions, words.deletions, words.insertions, spoken])
        return rows

    def value(self, sums):
        sums = np.asarray(sums, dtype=np.float64)
        return sums[..., :3].sum(axis=-1) / np.maximum(sums[..., 3], 1)
