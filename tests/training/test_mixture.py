"""What each optimizer step takes: shares, passes, micro-batches."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from speechverse.training.curriculum import Plateau, Stage, plan_curriculum
from speechverse.training.data.draws import ShuffledPasses, StepDraws
from speechverse.training.data.micro_batches import TokenCosts, cut_into_micro_batches, padding_share
from speechverse.training.mixture import Mixture, MixtureArguments, MixtureDataset


SIZES = {"a/asr": 1000, "b/ic": 250, "b/er": 90, "b/asr+ic": 60}


def make_mixture(weights=None, **arguments):
    datasets, start = [], 0
    for name, size in SIZES.items():
        tasks = tuple(name.split("/")[1].split("+"))
        datasets.append(MixtureDataset(name, tasks, range(start, start + size), (weights or {}).get(name, 1.0)))
        start += size
    return Mixture(datasets, MixtureArguments(**arguments))


def draws_of(mixture, *stages, batch_size=16, seed=0):
    stages = list(stages or [Stage("all", steps=1000)])
    rates = {"projector": 1.0, "lora": 1.0}
    curriculum = plan_curriculum(stages, list(rates), mixture.size, batch_size, learning_rates=rates)
    return StepDraws(curriculum, mixture, batch_size, seed)


def dataset_of(index):
    return int(np.searchsorted(np.cumsum(list(SIZES.values())), index, side="right"))


# Shares


def test_shares_are_weight_times_size_by_default():
    shares = make_mixture({"b/er": 3.0}).shares(Stage("all", steps=1))
    assert shares == pytest.approx(np.array([1000, 250, 270, 60]) / 1580)


def test_temperature_evens_out_sizes():
    root = make_mixture(temperature=2).shares(Stage("all", steps=1))
    assert root == pytest.approx(np.sqrt([1000, 250, 90, 60]) / np.sqrt([1000, 250, 90, 60]).sum())
    even = make_mixture(temperature=1e9).shares(Stage("all", steps=1))
    assert even == pytest.approx([0.25] * 4)


def test_stage_takes_its_tasks_and_its_weights():
    mixture = make_mixture()
    shares = mixture.shares(Stage("some", tasks=["asr", "ic"], weights={"ic": 2.0, "a/asr": 0.5}, steps=1))
    assert shares == pytest.approx(np.array([500, 500, 0, 60]) / 1060)
    assert mixture.size(Stage("some", tasks=["asr", "ic"], steps=1)) == 1310


def test_joint_share_is_of_all_draws():
    shares = make_mixture(joint_share=0.1).shares(Stage("all", steps=1))
    assert shares[3] == pytest.approx(0.1) and shares[:3] == pytest.approx(0.9 * np.array([1000, 250, 90]) / 1340)
    alone = make_mixture(joint_share=0.1).shares(Stage("er", tasks=["er"], steps=1))
    assert alone == pytest.approx([0, 0, 1, 0])


@pytest.mark.parametrize("arguments", [{}, {"temperature": 3.0, "joint_share": 0.2}])
def test_drawn_proportions_match_the_shares(arguments):
    mixture = make_mixture({"b/ic": 2.0}, **arguments)
    draws = draws_of(mixture)
    drawn = Counter(dataset_of(index) for step in range(800) for index in draws[step])
    expected = mixture.shares(Stage("all", steps=1)) * 800 * 16
    assert chisquare([drawn[number] for number in range(4)], expected).pvalue > 1e-3


def test_wrong_stages_are_refused():
    mixture = make_mixture()
    for stage, message in [
        (
            Stage("x", steps=1, weights={"sf": 1.0}),
            r"weights names 'sf', no dataset and no task; there are a/asr, asr",
        ),
        (
            Stage("x", steps=1, tasks=["asr", "st"]),
            "tasks names 'st', which train_data do not teach; they teach asr, er, ic",
        ),
        (Stage("x", steps=1, tasks=["er"], weights={"er": 0.0}), "learns er: train_data have nothing of it"),
        (Stage("x", steps=1, tasks=["er"]), "has 90 samples, fewer than the 128 of an optimizer step"),
    ]:
        with pytest.raises(ValueError, match=message):
            mixture.check(stage, 128)
    for wrong in ({"temperature": 0}, {"joint_share": 1}, {"adaptive": 0}):
        with pytest.raises(ValueError, match=f"key {next(iter(wrong))} is"):
            MixtureArguments(**wrong)


# Following the validation losses


def test_slower_tasks_are_drawn_more():
    """Equation 7 of Liu et al. 2019: weights are the softmax, at a temperature, of the ratios of the last two losses."""
    mixture = make_mixture(adaptive=2.0)
    before = mixture.shares(Stage("all", steps=1))
    assert mixture.note_evaluation(10, {"asr": 4.0, "ic": 2.0, "er": 1.0}) is None
    factors = mixture.note_evaluation(20, {"asr": 2.0, "ic": 2.0, "er": 1.1})
    softmax = np.exp(np.array([0.5, 1.0, 1.1]) / 2)
    assert list(factors.values()) == pytest.approx(3 * softmax / softmax.sum())
    assert mixture.shares(Stage("all", steps=1), 19) == pytest.approx(before)
    after = before * [factors["asr"], factors["ic"], factors["er"], 1.0]
    assert mixture.shares(Stage("all", steps=1), 20) == pytest.approx(after / after.sum())


def test_losses_that_explode_or_vanish_leave_every_task_its_share():
    mixture = make_mixture(adaptive=0.5)
    mixture.note_evaluation(1, {"asr": 0.001, "ic": 0.0, "er": 1.0})
    factors = mixture.note_evaluation(2, {"asr": 50.0, "ic": 1.0, "er": float("nan")})
    assert factors == {"asr": pytest.approx(1.0)}  # of the others there is nothing to be told
    factors = mixture.note_evaluation(3, {"asr": 50.0, "ic": 500.0, "er": 1.0})
    assert factors["ic"] / factors["asr"] == pytest.approx(np.exp((2 - 1) / 0.5))  # a ratio counts as 2 at most
    assert np.isfinite(mixture.shares(Stage("all", steps=1), 3)).all()


def test_nothing_is_followed_unless_asked():
    mixture = make_mixture()
    for step in (1, 2, 3):
        assert mixture.note_evaluation(step, {"asr": 1.0 / step}) is None
    state = mixture.state_dict()
    assert state["adjustments"] == state["last_losses"] == []


def test_resuming_on_other_data_is_said(caplog):
    mixture = make_mixture()
    state = json.loads(json.dumps(mixture.state_dict()))
    mixture.load_state_dict(state)
    mixture.load_state_dict({"adjustments": [], "last_losses": []})  # of an earlier version
    assert caplog.text == ""
    Mixture(mixture.datasets[1:]).load_state_dict(state)
    assert "drew from other data" in caplog.text and mixture.datasets[0].name in caplog.text


def test_restored_mixture_draws_what_the_other_would():
    def decide(mixture, steps):
        for step in steps:
            mixture.note_evaluation(step, {"asr": 3.0 / step, "ic": 1.0, "er": 2.0 + step / 100})

    whole, first, second = (make_mixture(adaptive=1.0) for _ in range(3))
    decide(whole, (10, 20, 30))
    decide(first, (10, 20))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    decide(second, (30,))
    expected, found = draws_of(whole), draws_of(second)
    assert [found[step] for step in range(25, 45)] == [expected[step] for step in range(25, 45)]


# Draws


@given(size=st.integers(1, 40), counts=st.lists(st.integers(0, 40), max_size=30))
@settings(max_examples=200, deadline=None)
def test_passes_take_every_sample_as_often_and_none_twice_at_once(size, counts):
    passes = ShuffledPasses(range(100, 100 + size), (7,))
    taken = Counter()
    for count in counts:
        part = passes.take(min(count, size)).tolist()
        assert len(set(part)) == len(part) == min(count, size)
        taken.update(part)
    times = [taken[index] for index in range(100, 100 + size)]
    assert max(times) - min(times) <= 2  # a sample that a pass would repeat at once is put at its end


def test_step_is_a_function_of_seed_and_step():
    draws = draws_of(make_mixture())
    steps = [draws[step] for step in range(30)]
    assert [draws_of(make_mixture())[step] for step in (29, 3, 17)] == [steps[29], steps[3], steps[17]]  # in any order
    assert draws_of(make_mixture(), seed=1)[3] != steps[3]
    assert all(len(set(step)) == 16 for step in steps)


def test_stages_draw_from_their_own_data():
    mixture = make_mixture()
    draws = draws_of(mixture, Stage("one", tasks=["er"], steps=5), Stage("two", tasks=["asr"], steps=5))
    assert {dataset_of(index) for step in range(5) for index in draws[step]} == {2}
    assert {dataset_of(index) for step in range(5, 10) for index in draws[step]} == {0}


def test_early_end_moves_what_follows():
    mixture = make_mixture()
    stages = Stage("one", tasks=["er"], steps=6, until=Plateau(1)), Stage("two", tasks=["asr"], steps=5)
    draws = draws_of(mixture, *stages)
    first = [draws[step] for step in range(4)]
    draws.curriculum.note_evaluation(2, {"er": 1.0})
    draws.curriculum.note_evaluation(4, {"er": 1.0})
    assert {dataset_of(index) for index in draws[4]} == {0}
    resumed = draws_of(mixture, *stages)
    resumed.curriculum.load_state_dict(draws.curriculum.state_dict())
    assert resumed[5] == draws[5] and [resumed[step] for step in range(4)] == first


def test_what_a_small_dataset_cannot_give_comes_from_the_others():
    mixture = make_mixture({"b/asr+ic": 1e6})
    drawn = draws_of(mixture, batch_size=100)[0]
    assert len(set(drawn)) == 100 and sum(dataset_of(index) == 3 for index in drawn) == 60


# Micro-batches


COSTS = TokenCosts(audio=2.0, input=1.0, label=3.0)


def random_lengths(number, seed):
    generator = np.random.default_rng(seed)
    audio = generator.integers(3, 120, number)
    return np.stack([audio, audio + generator.integers(5, 200, number), generator.integers(1, 40, number)], axis=1)


@given(number=st.integers(1, 60), cuts=st.integers(1, 60), seed=st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_micro_batches_hold_every_sample_once_and_none_is_empty(number, cuts, seed):
    cuts = min(cuts, number)
    found = cut_into_micro_batches(random_lengths(number, seed), cuts, COSTS)
    assert len(found) == cuts and all(found)
    assert sorted(place for places in found for place in places) == list(range(number))


def test_padding_share_is_what_a_count_of_positions_says():
    lengths = np.array([[10, 20, 2], [6, 30, 1], [10, 20, 2]])
    positions = 2 * 10 * 2 + 30 * 2 + 2 * 3 * 2  # first two together, each padded to the longer
    real = (10 + 6) * 2 + (20 + 30) + (2 + 1) * 3
    alone = 10 * 2 + 20 + 2 * 3
    assert padding_share(lengths, [[0, 1], [2]], COSTS) == pytest.approx(1 - (real + alone) / (positions + alone))


@pytest.mark.parametrize("seed", range(3))
def test_cutting_pads_and_waits_less_than_chance_and_than_sorting_by_length(seed):
    lengths = random_lengths(256, seed)

    def shares(micro_batches):
        dearest = max(len(places) * COSTS.of_lengths(lengths[places].max(0)) for places in micro_batches)
        return padding_share(lengths, micro_batches, COSTS), dearest

    padding, dearest = shares(cut_into_micro_batches(lengths, 32, COSTS))
    by_length = np.argsort(lengths[:, 1])
    for order in (np.random.default_rng(seed).permutation(256), by_length):
        other_padding, other_dearest = shares([order[start : start + 8].tolist() for start in range(0, 256, 8)])
        assert padding < 0.75 * other_padding and dearest < 0.8 * other_dearest


def test_costs_of_a_model_count_its_weights():
    from tiny_models import tiny_model, tiny_processor

    for text in ("t5", "llama"):
        model = tiny_model(text=text)
        processor = tiny_processor(model, text=text)
        costs, cached = (TokenCosts.of(model, processor, cached=cached) for cached in (False, True))
        assert costs.audio > cached.audio > 0 and (costs.label > 0) == (text == "t5")
        trained = TokenCosts.of(tiny_model(text=text, freeze_audio_tower=False), processor)
        assert trained.audio - cached.audio == pytest.approx(3 * (costs.audio - cached.audio))
