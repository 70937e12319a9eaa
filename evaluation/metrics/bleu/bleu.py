"""BLEU: `evaluate.load("evaluation/metrics/bleu")`, or `load_metric("bleu")`."""

import numpy as np
from sacrebleu.metrics import BLEU

from speechverse.evaluation.corpus_metric import CorpusMetric


class Bleu(CorpusMetric):
    """BLEU of a corpus, 0 to 100, by sacrebleu, whose signature it gives.

    A sample's own value is that of a corpus of it alone: 0 where it is shorter than four words.

    Args:
        tokenize (`str`, *optional*, defaults to `"13a"`): sacrebleu's name for how words are found; `zh` for Chinese.
        lowercase (`bool`, *optional*, defaults to `False`): whether case is ignored.
    """

    metric_name = "bleu"
    scale = 1
    answer_type = "text"

    def __init__(self, tokenize: str = "13a", lowercase: bool = False, **kwargs):
        super().__init__(**kwargs)
        if tokenize not in BLEU.TOKENIZERS:
            raise ValueError(f"sacrebleu has no tokenizer {tokenize!r}; it has {', '.join(BLEU.TOKENIZERS)}.")
        self._bleu = BLEU(tokenize=tokenize, lowercase=lowercase, force=True)
        self._bleu.corpus_score([""], [[""]])  # its signature then knows how many references there are
        self.signature = str(self._bleu.get_signature())

    def _count(self, predictions, references):
        """Columns: words of the prediction and of the reference, then matched and all n-grams of each order."""
        rows = []
        for prediction, reference in zip(predictions, references, strict=True):
            score = self._bleu.corpus_score([prediction], [[reference]])
            rows.append([score.sys_len, score.ref_len, *score.counts, *score.totals])
        return rows

    def value(self, sums):
        return np.apply_along_axis(self._score, -1, np.asarray(sums, dtype=np.float64))

    def _score(self, sums: np.ndarray) -> float:
        sys_len, ref_len, *counts = map(int, sums)
        order = self._bleu.max_ngram_order
        return self._bleu.compute_bleu(
            counts[:order], counts[order:], sys_len, ref_len, smooth_method=self._bleu.smooth_method
        ).score
