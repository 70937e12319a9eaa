"""The stages on their line of steps: lengths, learning rates, early ends, and what a checkpoint keeps of them."""

import json

import pytest

from speechverse.training.arguments import parse_stages
from speechverse.training.curriculum import Curriculum, Plateau, Stage, default_stages, plan_curriculum


RATES = {"projector": 1e-3, "lora": 5e-4}
PARTS = ["projector", "lora"]


def curriculum(*stages, warmup_steps=0, **arguments):
    stages = stages or (
        Stage("align", tasks=["asr"], trains=["projector"], steps=4),
        Stage("join", tasks=["asr"], steps=4, until=Plateau(2, "asr")),
        Stage("all", steps=10),
    )
    arguments = {"learning_rates": RATES, "warmup_steps": warmup_steps} | arguments
    return plan_curriculum(list(stages), PARTS, lambda stage: 100, 8, **arguments)


def test_stages_follow_one_another():
    planned = curriculum()
    assert [planned.index_at(step) for step in range(18)] == [0] * 4 + [1] * 4 + [2] * 10
    assert planned.max_steps == 18 and planned.index_at(18) == 2
    assert [planned.joining(index) for index in range(3)] == [["projector"], ["lora"], []]


def test_epochs_are_passes_over_the_samples_of_the_stage():
    sizes = {"one": 100, "two": 17}
    planned = plan_curriculum(
        [Stage("one", epochs=2), Stage("two", epochs=1)], PARTS, lambda s: sizes[s.name], 8, learning_rates=RATES
    )
    assert planned.lengths == [25, 3]  # 200 / 8; 17 / 8, begun


def test_max_steps_cuts_the_run(caplog):
    stages = [Stage("one", steps=5), Stage("two", steps=5), Stage("three", steps=5)]
    planned = plan_curriculum(stages, PARTS, lambda s: 1, 1, max_steps=7, learning_rates=RATES)
    assert planned.lengths == [5, 2] and planned.max_steps == 7
    assert "max_steps is 7: nothing is left for the stages three" in caplog.text


def test_what_does_not_learn_has_no_learning_rate_and_what_joins_warms_up():
    planned = curriculum(warmup_steps=2, lr_scheduler_type="linear")
    assert [planned.learning_rate("lora", step) for step in range(4)] == [0.0] * 4
    assert [planned.learning_rate("projector", step) for step in range(8)] == pytest.approx(
        [0, 0.5e-3, 1e-3, 1e-3] + [1e-3] * 4  # goes on learning at its peak when LoRA joins
    )
    assert [planned.learning_rate("lora", step) for step in range(4, 8)] == pytest.approx([0, 2.5e-4, 5e-4, 5e-4])
    # The last stage decays as the run says.
    assert [planned.learning_rate("projector", step) for step in (8, 13, 17)] == pytest.approx([1e-3, 0.5e-3, 0.1e-3])


@pytest.mark.parametrize(
    "given, length, steps", [(100, 8, 4), (3, 8, 3), (0.25, 8, 2), (0.9, 8, 4), (0, 8, 0), (100, 1, 0)]
)
def test_warmup_of_the_run_is_at_most_half_of_a_stage(given, length, steps):
    planned = curriculum(Stage("only", steps=length), warmup_steps=given)
    rates = [planned.learning_rate("lora", step) / RATES["lora"] for step in range(length)]
    assert rates == pytest.approx([step / steps if step < steps else 1.0 for step in range(length)])


def test_stage_has_rates_and_schedules_of_its_own():
    stage = Stage(
        "own", steps=10, learning_rate={"lora": 2e-4}, warmup_steps={"projector": 2}, lr_scheduler_type="cosine"
    )
    planned = curriculum(stage, warmup_steps=5)
    assert planned.learning_rate("projector", 1) == pytest.approx(0.5e-3)
    assert planned.learning_rate("lora", 5) == pytest.approx(2e-4)  # warmed up by the run's 5 steps
    assert planned.learning_rate("projector", 6) == pytest.approx(0.5e-3)  # half of the cosine, after 2 of 10


def test_plateau_ends_a_stage_early():
    planned = curriculum()
    assert planned.note_evaluation(4, {"asr": 9.0}) is None  # that is the stage before
    assert planned.note_evaluation(5, {"asr": 3.0}) is None
    assert planned.note_evaluation(6, {"asr": 3.1}) is None
    assert "asr validation loss has not fallen below 3.0000 for 2 evaluations" in planned.note_evaluation(
        7, {"asr": 3.0}
    )
    assert planned.first_step(2) == 7 and planned.max_steps == 17
    record = planned.record(9)
    assert [row["first_step"] for row in record] == [0, 4, 7] and [row["steps"] for row in record] == [4, 3, 2]
    assert [row["end"] for row in record] == ["length", "plateau of the validation loss", None]


def test_an_improvement_starts_the_patience_anew():
    planned = curriculum(Stage("only", steps=100, until=Plateau(2)))
    reasons = [
        planned.note_evaluation(step, {"asr": loss, "er": 1.0}) for step, loss in enumerate([3, 4, 2, 3, 3], start=1)
    ]
    assert [reason is not None for reason in reasons] == [False] * 4 + [True]


def test_mean_is_over_the_tasks_of_the_stage():
    planned = curriculum(Stage("some", tasks=["asr"], steps=9, until=Plateau(1)))
    planned.note_evaluation(1, {"asr": 2.0, "er": 5.0})
    assert planned.best_loss == 2.0
    assert planned.note_evaluation(2, {"asr": 1.0, "asr+er": 0.1, "er": 0.1}) is None and planned.best_loss == 1.0
    with pytest.raises(ValueError, match="'some' has until, but eval_data hold none of its tasks"):
        planned.note_evaluation(3, {"er": 5.0})
    named = curriculum(Stage("named", steps=9, until=Plateau(1, "st")))
    with pytest.raises(ValueError, match="waits for the validation loss of st, which eval_data lack; they have asr"):
        named.note_evaluation(1, {"asr": 2.0})


def test_restored_curriculum_decides_as_the_other_would():
    losses = [4.0, 3.0, 3.5, 3.2, 3.6, 3.1]
    for cut in range(len(losses)):
        whole, first = (curriculum(Stage("a", steps=50, until=Plateau(3)), Stage("b", steps=5)) for _ in range(2))
        for step, loss in enumerate(losses[:cut], start=1):
            first.note_evaluation(step, {"asr": loss})
        second = curriculum(Stage("a", steps=50, until=Plateau(3)), Stage("b", steps=5))
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        for step, loss in enumerate(losses, start=1):
            whole.note_evaluation(step, {"asr": loss})
            if step > cut:
                second.note_evaluation(step, {"asr": loss})
        assert second.state_dict() == whole.state_dict() and whole.early_ends == {0: 5}


def test_default_is_the_papers():
    three = default_stages([("asr",), ("ic",), ()], 5)
    assert [(stage.tasks, stage.trains, stage.epochs) for stage in three] == [
        (["asr"], ["projector"], 1),
        (["asr"], None, 1),
        (None, None, 5),
    ]
    assert default_stages([("asr",), ("ic",), ()], 5, aligned=True) == three[1:]
    assert [stage.tasks for stage in default_stages([("asr",)], 5)] == [["asr"], None]
    assert len(default_stages([("ic",), ("asr", "ic")], 5)) == 1  # joint answers alone are no ASR data
    assert default_stages([()], 5, max_steps=7)[0].steps == 7
    assert [stage.steps for stage in default_stages([("asr",), ("ic",)], 5, max_steps=20)] == [
        4,
        4,
        20,
    ]  # cut to what is left


def test_a_joint_sample_is_learned_where_all_its_tasks_are():
    stage = Stage("s", tasks=["asr", "ic"], steps=1)
    assert stage.teaches(("asr", "ic")) and stage.teaches(("ic",))
    assert not stage.teaches(("asr", "er")) and not stage.teaches(())
    assert Stage("s", steps=1).teaches(())


@pytest.mark.parametrize(
    "entries, message",
    [
        ({}, "it is a list of stages"),
        ([], "it is a list of stages"),
        ([{"name": "a"}], r"\[0\]: stage 'a' needs steps or epochs"),
        ([{"name": "a", "steps": 1, "epochs": 1}], "needs steps or epochs, one of them"),
        ([{"name": "a", "steps": 0}], "is to last 0"),
        ([{"name": "a", "steps": 1, "trains": ["encoder"]}], "lists some of projector, lora, audio_tower"),
        ([{"name": "a", "steps": 1, "lr": 1.0}], "unknown key lr"),
        ([{"name": "a", "steps": 1, "tasks": []}], "key tasks is empty"),
        ([{"name": "a", "steps": 1, "weights": {"ic": -1.0}}], "the weight of ic is below 0"),
        ([{"name": "a", "steps": 1, "learning_rate": {"lora": -0.1}}], "key learning_rate is .* not below 0"),
        ([{"name": "a", "steps": 1, "until": {"patience": 0}}], r"\[0\]\.until: key patience is 0"),
        (
            [{"name": "a", "steps": 1, "trains": ["lora"], "learning_rate": {"projector": 1.0}}],
            "names projector, which",
        ),
    ],
)
def test_mistakes_in_stages_are_named(entries, message):
    with pytest.raises(ValueError, match=message):
        parse_stages(entries, "run.yaml, curriculum")


def test_what_cannot_learn_is_refused():
    with pytest.raises(ValueError, match="trains audio_tower, which cannot learn in this model"):
        curriculum(Stage("tune", trains=["audio_tower"], steps=1))
    with pytest.raises(ValueError, match="is no function of the step alone"):
        curriculum(Stage("odd", steps=1, lr_scheduler_type="reduce_lr_on_plateau"))


def test_schedules_of_the_run_get_their_arguments():
    arguments = {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}}
    planned = curriculum(Stage("only", steps=10), **arguments)
    assert planned.learning_rate("lora", 10) == pytest.approx(0.1 * RATES["lora"])


def test_other_lengths_than_before_are_told_of(caplog):
    state = curriculum(Stage("a", steps=8), Stage("b", steps=4)).state_dict()
    curriculum(Stage("a", steps=8), Stage("b", steps=4)).load_state_dict(state)
    assert not caplog.text
    curriculum(Stage("a", steps=4), Stage("b", steps=4)).load_state_dict(state)
    assert "were planned for [8, 4] steps, and now are for [4, 4]" in caplog.text


def test_curriculum_has_a_stage():
    with pytest.raises(ValueError, match="has one stage at least"):
        Curriculum([], [], RATES)
