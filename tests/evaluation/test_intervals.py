"""Bootstrap intervals and paired comparisons, against loops over samples with the same draws."""

import os
import subprocess
import sys

import numpy as np
import pytest

from speechverse.evaluation import intervals
from speechverse.evaluation.corpus_metric import METRICS, load_metric
from speechverse.evaluation.intervals import bootstrap, compare


SPEAKERS = [f"speaker {number}" for number in (3, 1, 1, 0, 3, 2, 0, 1, 4, 4, 4, 4)]
LABELS = ["glad", "sad", "calm"]


def answers(name: str, seed: int, count: int = len(SPEAKERS)):
    """Predictions and references of a metric's kind, some right."""
    random = np.random.default_rng(seed)
    references = np.random.default_rng(99).integers(len(LABELS), size=(count, 6))
    predictions = np.where(random.random((count, 6)) < 0.7, references, random.integers(len(LABELS), size=(count, 6)))
    form = {
        "text": lambda row: " ".join(LABELS[index] for index in row),
        "label": lambda row: LABELS[row[0]],
        "keywords": lambda row: [LABELS[index] for index in row[:2]],
        "slots": lambda row: [{"label": LABELS[row[0]], "value": LABELS[row[1]]}],
    }[load_metric(name).answer_type]
    return [form(row) for row in predictions], [form(row) for row in references]


def drawn_samples(speakers, resamples: int, seed: int) -> list[list[int]]:
    """The numbers of the samples in each draw, each as often as it was drawn."""
    groups = [[index for index, one in enumerate(speakers) if one == speaker] for speaker in dict.fromkeys(speakers)]
    random = np.random.default_rng(seed)
    draws = []
    for _ in range(resamples):
        counts = random.multinomial(len(groups), [1 / len(groups)] * len(groups))
        draws.append([index for group, count in zip(groups, counts, strict=True) for index in group * count])
    return draws


@pytest.mark.parametrize("name", sorted(METRICS))
@pytest.mark.parametrize("speakers", [None, SPEAKERS])
def test_interval_is_that_of_a_loop_that_scores_every_draw_anew(name, speakers, monkeypatch):
    monkeypatch.setattr(intervals, "WEIGHTS_AT_ONCE", 7 * 12)  # several blocks
    metric = load_metric(name)
    predictions, references = answers(name, seed=1)
    statistics = metric.statistics(predictions, references)
    interval = bootstrap(metric, statistics, speakers, resamples=50, confidence=0.9, seed=4)
    values = []
    for draw in drawn_samples(speakers or range(len(references)), 50, seed=4):
        rows = metric.statistics([predictions[index] for index in draw], [references[index] for index in draw])
        values.append(float(metric.value(rows.sum(axis=0))))
    assert interval.low == pytest.approx(np.percentile(values, 5), rel=1e-9)
    assert interval.high == pytest.approx(np.percentile(values, 95), rel=1e-9)
    assert interval.value == metric.value(statistics.sum(axis=0))
    assert (interval.resampled, interval.clusters) == (("speakers", 5) if speakers else ("samples", 12))
    assert interval == bootstrap(metric, statistics, speakers, resamples=50, confidence=0.9, seed=4)
    assert interval != bootstrap(metric, statistics, speakers, resamples=50, confidence=0.9, seed=5)


def test_draws_are_the_same_to_the_last_bit_on_any_number_of_threads():
    script = """
import hashlib, runpy, sys, types, numpy as np

def value(sums):
    print(hashlib.sha256(sums.tobytes()).hexdigest())
    return sums[..., 0]

statistics = np.random.default_rng(0).random((1000, 2))
runpy.run_path(sys.argv[1])["bootstrap"](types.SimpleNamespace(value=value), statistics)
"""
    found = {
        subprocess.run(
            [sys.executable, "-c", script, intervals.__file__],
            env={**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(found) == 1


@pytest.mark.parametrize("name", sorted(METRICS))
@pytest.mark.parametrize("speakers", [None, SPEAKERS])
def test_difference_is_that_of_a_loop_over_the_same_draws_for_both(name, speakers):
    metric = load_metric(name)
    one, other = (metric.statistics(*answers(name, seed)) for seed in (1, 2))
    difference = compare(metric, one, other, speakers, resamples=60, seed=4)
    values = []
    for draw in drawn_samples(speakers or range(len(one)), 60, seed=4):
        values.append(float(metric.value(one[draw].sum(axis=0)) - metric.value(other[draw].sum(axis=0))))
    assert difference.value == metric.value(one.sum(axis=0)) - metric.value(other.sum(axis=0))
    assert [difference.low, difference.high] == pytest.approx(np.percentile(values, [2.5, 97.5]), rel=1e-9, abs=1e-9)
    # Sums in another order may be a rounding error away from 0.
    rounded = np.round(values, 12)
    shares = [(np.sum(rounded <= 0) + 1) / 61, (np.sum(rounded >= 0) + 1) / 61]
    assert difference.p_value == pytest.approx(min(1, 2 * min(shares)))
    reverse = compare(metric, other, one, speakers, resamples=60, seed=4)
    assert [reverse.value, reverse.low, reverse.high] == pytest.approx(
        [-difference.value, -difference.high, -difference.low]
    )
    assert reverse.p_value == difference.p_value and reverse.tie == difference.tie


@pytest.mark.parametrize("name", sorted(METRICS))
@pytest.mark.parametrize("speakers", [None, SPEAKERS])
def test_a_system_ties_exactly_with_itself(name, speakers):
    metric = load_metric(name)
    statistics = metric.statistics(*answers(name, 1))
    difference = compare(metric, statistics, statistics.copy(), speakers)
    assert (difference.value, difference.low, difference.high, difference.p_value) == (0, 0, 0, 1)
    assert difference.tie


def test_rounding_is_no_difference():
    f1 = load_metric("keyword_f1")
    thirds = np.stack([np.tile([0.1, 0.2, 0.3], 40), np.ones(120)], axis=1)
    difference = compare(f1, thirds, thirds[::-1])
    same = compare(f1, thirds, thirds * [1 + 1e-15, 1])
    assert (same.value, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    assert difference.value == 0 and difference.low < 0 < difference.high


def test_what_is_better_everywhere_is_no_tie():
    accuracy = load_metric("accuracy")
    references = ["a"] * 200
    better = accuracy.statistics(["a"] * 150 + ["b"] * 50, references)
    worse = accuracy.statistics(["a"] * 110 + ["b"] * 90, references)
    difference = compare(accuracy, better, worse)
    assert difference.value == pytest.approx(0.2) and 0 < difference.low < 0.2 < difference.high
    assert difference.p_value == pytest.approx(2 / 1001) and not difference.tie
    # What is hard for both cancels out: of systems that err alike, the difference is surer than either figure tells.
    unpaired = [interval.high - interval.low for interval in (bootstrap(accuracy, better), bootstrap(accuracy, worse))]
    assert difference.high - difference.low < 0.8 * np.hypot(*unpaired)


def simulated(random, speakers: int, each: int, spread: float):
    """Right and wrong answers of speakers who are understood unequally well, 0.6 of all on average."""
    chances = np.clip(0.6 + spread * random.choice([-1, 1], size=speakers), 0, 1)
    right = (random.random((speakers, each)) < chances[:, None]).reshape(-1)
    return np.stack([right, np.ones(len(right))], axis=1).astype(float), np.repeat(np.arange(speakers), each).tolist()


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    accuracy, random = load_metric("accuracy"), np.random.default_rng(0)
    held = {"samples": 0, "speakers": 0, "samples in spite of speakers": 0}
    for _ in range(200):
        statistics, _ = simulated(random, speakers=80, each=1, spread=0)
        interval = bootstrap(accuracy, statistics, resamples=200)
        held["samples"] += interval.low <= 0.6 <= interval.high
        statistics, speakers = simulated(random, speakers=30, each=20, spread=0.3)
        interval = bootstrap(accuracy, statistics, speakers, resamples=200)
        held["speakers"] += interval.low <= 0.6 <= interval.high
        interval = bootstrap(accuracy, statistics, resamples=200)
        held["samples in spite of speakers"] += interval.low <= 0.6 <= interval.high
    assert 180 <= held["samples"] <= 198 and 176 <= held["speakers"] <= 198
    assert held["samples in spite of speakers"] < 140


def test_intervals_over_speakers_are_wider_where_speakers_differ():
    accuracy = load_metric("accuracy")
    statistics, speakers = simulated(np.random.default_rng(1), speakers=20, each=30, spread=0.3)
    clustered, naive = bootstrap(accuracy, statistics, speakers), bootstrap(accuracy, statistics)
    assert clustered.value == naive.value
    assert clustered.high - clustered.low > 2 * (naive.high - naive.low)


@pytest.mark.parametrize(
    "speakers",
    [
        pytest.param(["ann", None, "bob"], id="one unknown"),
        pytest.param(["ann", "", "bob"], id="one empty"),
        pytest.param(["ann"] * 3, id="one speaker"),
        pytest.param([None] * 3, id="none known"),
    ],
)
def test_samples_are_drawn_where_speakers_do_not_do(speakers):
    accuracy = load_metric("accuracy")
    statistics = accuracy.statistics(["a", "b", "a"], ["a", "a", "a"])
    interval = bootstrap(accuracy, statistics, speakers)
    assert interval == bootstrap(accuracy, statistics)
    assert (interval.resampled, interval.clusters) == ("samples", 3)


def test_one_sample_is_its_own_interval():
    accuracy = load_metric("accuracy")
    interval = bootstrap(accuracy, accuracy.statistics([None], ["a"]))
    assert (interval.value, interval.low, interval.high, interval.clusters) == (0, 0, 0, 1)


def test_wrong_use_is_refused():
    accuracy = load_metric("accuracy")
    statistics = accuracy.statistics(["a", "b"], ["a", "a"])
    with pytest.raises(ValueError, match="3 speakers for 2 samples"):
        bootstrap(accuracy, statistics, ["a", "b", "c"])
    with pytest.raises(ValueError, match="one or more samples"):
        bootstrap(accuracy, np.zeros((0, 2)))
    with pytest.raises(ValueError, match="0 resamples"):
        bootstrap(accuracy, statistics, resamples=0)
    with pytest.raises(ValueError, match="confidence is 95"):
        bootstrap(accuracy, statistics, confidence=95)
    with pytest.raises(ValueError, match=r"same samples.*\(2, 2\) and \(1, 2\)"):
        compare(accuracy, statistics, statistics[:1])
