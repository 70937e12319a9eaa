"""SIGTERM: a whole checkpoint, exit code 143, and a run that goes on as if nothing had been."""

import os
import signal
import threading

import pytest
import torch
from tiny_trainer import learned, losses_of
from transformers import TrainerCallback

from speechverse.training.callbacks.leave_results import LeaveResults
from speechverse.training.callbacks.preemption import EXIT_CODE, Preempted


class Scheduler(TrainerCallback):
    """Sends SIGTERM within a step, so many times."""

    def __init__(self, step: int, times: int = 1):
        self.step, self.times = step, times

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.step:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def preempt(make_trainer):
    """Trains until SIGTERM comes in a step; returns the trainer."""

    def preempt(step, times=1, **arguments):
        trainer = make_trainer(folder="preempted", **arguments)
        trainer.add_callback(Scheduler(step, times))
        with pytest.raises(Preempted) as ended:
            trainer.train()
        assert ended.value.code == EXIT_CODE == 143
        return trainer

    return preempt


def saved(folder) -> set[str]:
    return {path.name for path in folder.glob("checkpoint-*")}


# An epoch has two steps: SIGTERM within one, and at its end; saving and evaluating at each step, at each epoch, or never.
@pytest.mark.parametrize(
    "step, strategies",
    [
        (1, {}),
        (3, {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 3}),
        (3, {"save_strategy": "epoch", "eval_strategy": "epoch"}),
        (
            4,
            {
                "save_strategy": "best",
                "eval_strategy": "epoch",
                "metric_for_best_model": "eval_loss",
                "greater_is_better": True,
            },
        ),
    ],
)
def test_resumed_run_equals_an_uninterrupted_one(step, strategies, preempt, make_trainer, tmp_path):
    whole = make_trainer(folder="whole", max_steps=step + 1, **strategies)
    whole.train()
    stopped = preempt(step, max_steps=step + 1, **strategies)
    assert stopped.state.global_step == step and f"checkpoint-{step}" in saved(tmp_path / "preempted")
    resumed = make_trainer(folder="preempted", max_steps=step + 1, **strategies)
    resumed.train(resume_from_checkpoint=True)
    assert losses_of(resumed) == losses_of(whole) and len(losses_of(whole)) == step + 1
    assert whole.state.best_metric == resumed.state.best_metric
    evaluated = [[entry["step"] for entry in t.state.log_history if "eval_loss" in entry] for t in (whole, resumed)]
    assert evaluated[0] == evaluated[1]
    for name, parameter in learned(whole).items():
        assert torch.equal(learned(resumed)[name], parameter), name


def test_one_sentence_tells_how_to_go_on(preempt, tmp_path, caplog):
    preempt(2, times=3, max_steps=5)  # a scheduler and a launcher may both send it
    folder = tmp_path / "preempted"
    expected = (
        f"SIGTERM: stopped after step 2 of 5; --resume_from_checkpoint true goes on from {folder / 'checkpoint-2'}."
    )
    assert [record.message for record in caplog.records if "SIGTERM" in record.message] == [expected]


def test_steps_since_the_last_log_are_logged(preempt):
    trainer = preempt(3, max_steps=10, logging_steps=5)
    assert [entry["step"] for entry in trainer.state.log_history if "loss" in entry] == [3]


def test_signal_in_the_last_step_comes_too_late(make_trainer):
    trainer = make_trainer(max_steps=2)
    trainer.add_callback(Scheduler(2))
    assert trainer.train().global_step == 2


def test_last_checkpoint_is_kept_beside_the_best(preempt, tmp_path):
    """With room for one the Trainer ends by deleting what is not the best."""
    strategies = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    preempt(2, max_steps=4, save_total_limit=1, load_best_model_at_end=True, **strategies)
    assert "checkpoint-2" in saved(tmp_path / "preempted")


def test_no_results_are_left_as_of_a_finished_run(make_trainer, tmp_path):
    trainer = make_trainer(max_steps=4)
    trainer.add_callback(Scheduler(2))
    trainer.add_callback(LeaveResults(trainer, {}))
    with pytest.raises(Preempted):
        trainer.train()
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"checkpoint-2"}


# The handler


def test_handler_is_put_back_even_by_a_failure(make_trainer, monkeypatch):
    def own(number, frame):
        pass

    before = signal.signal(signal.SIGTERM, own)
    try:
        trainer = make_trainer(max_steps=1)
        monkeypatch.setattr(trainer, "compute_loss", lambda *args, **kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            trainer.train()
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


def test_training_in_another_thread_hears_no_signal(make_trainer):
    before, trainer = signal.getsignal(signal.SIGTERM), make_trainer(max_steps=1)
    thread = threading.Thread(target=trainer.train)
    thread.start()
    thread.join()
    assert trainer.state.global_step == 1 and signal.getsignal(signal.SIGTERM) is before
