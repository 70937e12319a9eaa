"""What every metric of the evaluation can do, and where to find it by its name.

    wer = load_metric("wer")
    statistics = wer.statistics(["a cat"], ["the cat"])  # a row of counts for each sample
    wer.value(statistics.sum(axis=0))                    # 0.5, of the corpus
    wer.compute(predictions=["a cat"], references=["the cat"], speakers=["ann"])

A metric is computed from sums over samples, so a corpus's figure, a sample's own and a resample's come from the same numbers.
Each is a script of its own in `metrics/<name>/`, which `evaluate.load("evaluation/metrics/<name>")` takes as well, without a
network.
"""

import importlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import datasets
import numpy as np

from .intervals import bootstrap


try:
    import evaluate
except ImportError as error:
    raise ImportError("Metrics need the package evaluate: pip install 'speechverse[eval]'") from error

METRICS = {
    "accuracy": "Accuracy",
    "bleu": "Bleu",
    "keyword_f1": "KeywordF1",
    "pass_rate": "PassRate",
    "sd_f1": "SdF1",
    "slu_f1": "SluF1",
    "uar": "Uar",
    "wer": "Wer",
}  # and the names of their classes

TEXT = datasets.Value("string")
FEATURES = {"text": TEXT, "label": TEXT, "keywords": [TEXT], "slots": [{"label": TEXT, "value": TEXT}]}
INPUTS = """
Args:
    predictions: answers of the kind of the metric's task; `None` for one that could not be read.
    references: what would have been right, in the same order.
    speakers (`list`, *optional*): who speaks in each sample; where all are known, the interval is over speakers.
    resamples, confidence, seed: of the bootstrap interval.

Returns:
    `dict`: the value under the metric's name, `low` and `high`, the ends of its interval, and `signature`, how it is computed.
"""


class CorpusMetric(evaluate.Metric, ABC):
    """A figure of a corpus that is computed from sums over its samples.

    It is abstract, also because `evaluate.load` takes the first class of a script that is not.

    Attributes:
        metric_name (`str`): such as `wer`, as tasks and suites call it.
        higher_is_better (`bool`): whether a larger value is the better one.
        scale (`float`): what a value is multiplied by where people read it: 100 for shares.
        signature (`str`): how it is computed, to be printed beside it.
        answer_type (`str`): what is scored: `text`, `label`, `keywords` or `slots`, as a task has it.
        in_place_of_none: the answer that is scored where a prediction is `None`.
        paper (`str`): the article that defines it, if there is one.
    """

    metric_name: str
    higher_is_better: bool = True
    scale: float = 100
    signature: str
    answer_type: str
    in_place_of_none: object = ""
    paper: str = ""

    def statistics(self, predictions: Sequence, references: Sequence) -> np.ndarray:
        """Numbers of every sample whose sums over any samples are all that their value depends on.

        Args:
            predictions (`Sequence`): answers; `None` for one that could not be read.
            references (`Sequence`): what would have been right, in the same order.

        Returns:
            `np.ndarray` of shape `(samples, k)`, float64.

        Raises:
            ValueError: if there are none, not as many predictions as references, or one is not of the metric's kind.
        """
        if len(predictions) != len(references):
            raise ValueError(
                f"{self.metric_name}: there are {len(predictions)} predictions for {len(references)} references."
            )
        if not len(references):
            raise ValueError(f"{self.metric_name}: there are no samples to score.")
        self._refuse_others(predictions, "prediction", unread=True)
        self.check_references(references)
        predictions = [self.in_place_of_none if answer is None else answer for answer in predictions]
        return np.asarray(self._count(predictions, references), dtype=np.float64)

    def check_references(self, references: Sequence) -> None:
        """Tells before anything is answered whether the metric is for such answers.

        Raises:
            ValueError: if one is not of the metric's kind.
        """
        self._refuse_others(references, "reference")

    def _refuse_others(self, answers: Sequence, kind: str, unread: bool = False) -> None:
        for index, answer in enumerate(answers):
            if not (unread and answer is None) and not _is_of_type(answer, self.answer_type):
                raise ValueError(
                    f"{self.metric_name}: {kind} {index} is {answer!r}, which is no {self.answer_type} answer."
                )

    @abstractmethod
    def _count(self, predictions: list, references: Sequence) -> list | np.ndarray:
        """The rows of [`~CorpusMetric.statistics`] of readable answers."""

    @abstractmethod
    def value(self, sums: np.ndarray) -> np.ndarray:
        """The metric of sums of statistics: of a corpus, of many resamples of it, or of single samples.

        Args:
            sums (`np.ndarray` of shape `(..., k)`): sums over one sample or more.

        Returns:
            `np.ndarray` of shape `(...)`.
        """

    def _info(self):
        return evaluate.MetricInfo(
            description=inspect.getdoc(type(self)) or "",
            citation=self.paper,
            inputs_description=INPUTS,
            features=datasets.Features(
                {"predictions": FEATURES[self.answer_type], "references": FEATURES[self.answer_type]}
            ),
        )

    def _compute(
        self,
        predictions,
        references,
        speakers: Sequence | None = None,
        resamples: int = 1000,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> dict:
        """What `compute` returns."""
        interval = bootstrap(
            self,
            self.statistics(predictions, references),
            speakers,
            resamples=resamples,
            confidence=confidence,
            seed=seed,
        )
        return {
            self.metric_name: interval.value,
            "low": interval.low,
            "high": interval.high,
            "signature": self.signature,
        }

    def _enforce_nested_string_type(self, schema, obj):
        """Lets `None` through, which `evaluate` refuses as the first prediction and takes as a later one."""
        return None if obj is None else super()._enforce_nested_string_type(schema, obj)


def load_metric(name: str, **options) -> CorpusMetric:
    """A metric by its name.

    Args:
        name (`str`): one of [`METRICS`].
        **options: what this metric can be told, such as `language` for `wer` and `tokenize` for `bleu`.

    Raises:
        ValueError: if there is none of that name.
        ImportError: if a package that it needs is not installed.
    """
    if name not in METRICS:
        raise ValueError(f"There is no metric {name!r}; there are {', '.join(METRICS)}.")
    try:
        script = importlib.import_module(f"{__package__}.metrics.{name}.{name}")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"The metric {name} needs {error.name.partition('.')[0]}, which is not installed: pip install 'speechverse[eval]'"
        ) from error
    return getattr(script, METRICS[name])(**options)


def _is_of_type(answer, answer_type: str) -> bool:
    if answer_type in ("text", "label"):
        return isinstance(answer, str)
    if not isinstance(answer, (list, tuple)):
        return False
    if answer_type == "keywords":
        return all(isinstance(keyword, str) for keyword in answer)
    return all(
        isinstance(slot, Mapping) and isinstance(slot.get("label"), str) and isinstance(slot.get("value"), str)
        for slot in answer
    )
