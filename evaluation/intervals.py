"""How sure a corpus's figure is: bootstrap intervals, and the paired comparison of two systems.

Recordings of one speaker resemble each other, so whole speakers are drawn with replacement where every sample has one and
there are at least two; single samples elsewhere. A draw is a weight for every speaker or sample, the number of times that it
was drawn, so a thousand draws are one product of matrices with the metric's statistics: nothing is scored again.

The intervals are between percentiles of the draws. Of few speakers they are too narrow, as few sets can be drawn at all: four
speakers are hardly a sample of all. `clusters` says how many there were.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from .corpus_metric import CorpusMetric


WEIGHTS_AT_ONCE = 2_000_000  # 16 MB


@dataclass(frozen=True)
class Interval:
    """A figure, and between which it lies.

    Args:
        value (`float`): of all samples.
        low (`float`): lower end of the interval.
        high (`float`): upper end of the interval.
        resampled (`str`): `speakers` or `samples`, what was drawn with replacement.
        clusters (`int`): how many of them there are.
    """

    value: float
    low: float
    high: float
    resampled: str
    clusters: int


@dataclass(frozen=True)
class Difference(Interval):
    """By how much one system's figure exceeds another's on the same samples.

    Args:
        p_value (`float`): two-sided: twice the share of draws in which the difference is 0 or of the other sign, a draw of
            each being added; at most 1.
    """

    p_value: float

    @property
    def tie(self) -> bool:
        """Whether the interval contains 0."""
        return self.low <= 0 <= self.high


def bootstrap(
    metric: "CorpusMetric",
    statistics: np.ndarray,
    speakers: Sequence | None = None,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The metric of all samples with its bootstrap interval.

    Args:
        metric (`CorpusMetric`): what the statistics are of.
        statistics (`np.ndarray` of shape `(samples, k)`): the metric's.
        speakers (`Sequence`, *optional*): who speaks in each sample; `None` or an empty text where it is not known.
        resamples (`int`, *optional*, defaults to 1000): number of draws.
        confidence (`float`, *optional*, defaults to 0.95): share of the draws that the interval holds, between 0 and 1.
        seed (`int`, *optional*, defaults to 0): of the draws.

    Raises:
        ValueError: if there are no samples, not as many speakers as samples, or an option is out of its range.
    """
    statistics = np.asarray(statistics, dtype=np.float64)
    index, resampled, clusters = _units(statistics, speakers)
    units = _sums(statistics, index, clusters)
    draws = np.concatenate([metric.value(_drawn(weights, units)) for weights in _weights(clusters, resamples, seed)])
    low, high = _percentiles(draws, confidence)
    return Interval(float(metric.value(statistics.sum(axis=0))), low, high, resampled, clusters)


def compare(
    metric: "CorpusMetric",
    statistics: np.ndarray,
    other_statistics: np.ndarray,
    speakers: Sequence | None = None,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Difference:
    """This system's figure minus another's, on the same samples, with the bootstrap interval of the difference.

    The same speakers or samples are drawn for both (a paired test), so what is hard for both cancels out.

    Args:
        metric (`CorpusMetric`): what the statistics are of.
        statistics (`np.ndarray` of shape `(samples, k)`): of this system.
        other_statistics (`np.ndarray` of shape `(samples, k)`): of the other one, in the same order.
        speakers (`Sequence`, *optional*): as [`bootstrap`] takes them, and so are the options.

    Raises:
        ValueError: as [`bootstrap`] does, and if the systems have not answered the same number of samples.
    """
    statistics = np.asarray(statistics, dtype=np.float64)
    other_statistics = np.asarray(other_statistics, dtype=np.float64)
    if statistics.shape != other_statistics.shape:
        raise ValueError(
            f"Two systems are compared on the same samples: their statistics are of shapes {statistics.shape} and "
            f"{other_statistics.shape}."
        )
    index, resampled, clusters = _units(statistics, speakers)
    # Two products of one shape, not one of both: a system's difference to itself is then exactly 0.
    units, other_units = _sums(statistics, index, clusters), _sums(other_statistics, index, clusters)
    draws = np.concatenate(
        [
            _subtract(metric.value(_drawn(weights, units)), metric.value(_drawn(weights, other_units)))
            for weights in _weights(clusters, resamples, seed)
        ]
    )
    low, high = _percentiles(draws, confidence)
    value = _subtract(metric.value(statistics.sum(axis=0)), metric.value(other_statistics.sum(axis=0)))
    fewer = min((draws <= 0).sum(), (draws >= 0).sum())
    p_value = min(1.0, 2 * float(fewer + 1) / (len(draws) + 1))
    return Difference(float(value), low, high, resampled, clusters, p_value)


def _units(statistics: np.ndarray, speakers: Sequence | None) -> tuple[np.ndarray, str, int]:
    """The number of the speaker or sample that each sample belongs to, which of both it is, and how many there are."""
    samples = len(statistics)
    if statistics.ndim != 2 or not samples:
        raise ValueError(
            f"Statistics are a row for each of one or more samples; these are of shape {statistics.shape}."
        )
    if speakers is not None and len(speakers) != samples:
        raise ValueError(f"There are {len(speakers)} speakers for {samples} samples; each sample has one, or None.")
    if speakers is not None and all(speaker is not None and speaker != "" for speaker in speakers):
        numbers = {}
        index = [numbers.setdefault(speaker, len(numbers)) for speaker in speakers]
        if len(numbers) > 1:
            return np.array(index), "speakers", len(numbers)
    return np.arange(samples), "samples", samples


def _sums(statistics: np.ndarray, index: np.ndarray, clusters: int) -> np.ndarray:
    """Sums of rows that belong together, `(clusters, k)`."""
    sums = np.zeros((clusters, statistics.shape[1]))
    np.add.at(sums, index, statistics)
    return sums


def _weights(clusters: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each cluster is drawn in each resample, `(some resamples, clusters)`, until there are enough."""
    if resamples < 1:
        raise ValueError(f"There are {resamples} resamples; draw one at least.")
    random = np.random.default_rng(seed)
    at_once = max(1, WEIGHTS_AT_ONCE // clusters)
    shares = np.full(clusters, 1 / clusters)
    for start in range(0, resamples, at_once):
        yield random.multinomial(clusters, shares, size=min(at_once, resamples - start)).astype(np.float64)


def _drawn(weights: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Sums over what each resample drew, `(resamples, k)`."""
    # Not `@`: BLAS adds in another order on another number of threads, of which torchrun gives each process one.
    return np.einsum("dc,ck->dk", weights, units)


def _subtract(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Differences, 0 where there is none but that of rounding, which would turn a tie into a difference."""
    return np.where(np.isclose(values, others, rtol=1e-12, atol=0), 0.0, values - others)


def _percentiles(draws: np.ndarray, confidence: float) -> tuple[float, float]:
    if not 0 < confidence < 1:
        raise ValueError(f"The confidence is {confidence}; it lies between 0 and 1.")
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
