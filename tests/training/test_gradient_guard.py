"""Bad updates are skipped, learning rates lowered, and a run that cannot be saved is stopped; all of it resumes."""

import json
import math
import re
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from tiny_trainer import learned, losses_of, scale_losses
from transformers import TrainerCallback, TrainerControl, TrainerState

from speechverse.training.arguments import SpeechVerseTrainingArguments
from speechverse.training.callbacks.bad_batches import BadBatches, describe_samples
from speechverse.training.callbacks.gradient_guard import GradientGuard, TrainingDiverged
from speechverse.training.data.sample import Sample


# The decision, by norms alone


class Run:
    """Shows norms to a guard, and takes note of the steps whose gradient it threw away."""

    def __init__(self, folder, **settings):
        self.guard = GradientGuard(**{"min_norms": 3, "window": 10, "max_skips": 2} | settings)
        self.args = SimpleNamespace(
            fp16=False, deepspeed_plugin=None, output_dir=str(folder), process_index=0, world_size=1, max_grad_norm=0.0
        )
        self.state, self.control = TrainerState(), TrainerControl()
        self.parameter = torch.nn.Parameter(torch.zeros(2))
        self.guard.on_train_begin(self.args, self.state, self.control)

    def __call__(self, *norms: float) -> list[int]:
        skipped = []
        for norm in norms:
            self.parameter.grad = torch.ones(2)
            self.guard.norm = torch.tensor(norm)
            model = torch.nn.ParameterList([self.parameter])
            self.guard.on_pre_optimizer_step(self.args, self.state, self.control, model=model)
            self.state.global_step += 1
            if self.parameter.grad is None:
                skipped.append(self.state.global_step)
        return skipped


@pytest.fixture
def run(tmp_path):
    return lambda **settings: Run(tmp_path, **settings)


def test_bound_is_ten_times_the_median_of_the_accepted(run):
    skipped = run(max_skips=9)(1.0, 2.0, 3.0, 20.0, 25.1, 24.9, 30.1)
    assert skipped == [5, 7]  # the medians are 2, 2.5, 2.5 and 3


def test_few_norms_bound_nothing_but_what_is_not_finite(run):
    assert run()(math.nan, 1.0, 1000.0, math.inf) == [1, 4]


@pytest.mark.parametrize(("max_grad_norm", "skipped"), [(0.0, [4, 5]), (1.0, [5]), (3.0, [])])
def test_norm_that_clipping_was_meant_for_is_no_explosion(max_grad_norm, skipped, run, caplog):
    run = run(max_skips=9)
    run.args.max_grad_norm = max_grad_norm
    assert run(0.001, 0.001, 0.001, 2.4, 25.0, 0.001) == skipped
    assert ("is over 10 times max_grad_norm 1;" in caplog.text) == (max_grad_norm == 1.0)


def test_median_is_that_of_the_window(run):
    assert run(window=3)(1.0, 1.0, 1.0, 10.0, 10.0, 100.0) == []


def test_factor_zero_bounds_nothing_but_what_is_not_finite(run):
    assert run(factor=0)(1.0, 1.0, 1.0, 1e9, math.nan) == [5]


def test_another_level_of_norms_is_learned_after_a_reset(run):
    run = run()
    assert run(1.0, 1.0, 1.0) == []
    run.guard.reset()
    assert run(1000.0, 1000.0, 1000.0) == [] and run(1.0, 10_001.0) == [8]


def test_skips_within_the_window_halve_the_learning_rates(run):
    run, calm, explosion = run(), [1.0] * 9, 11.0
    run(*calm, explosion, *calm, explosion)
    assert run.guard.learning_rate_factor == 1  # the skips are ten steps apart
    run(*calm[1:], explosion)
    assert run.guard.learning_rate_factor == 0.5
    run(*calm[2:], explosion)
    assert run.guard.learning_rate_factor == 0.5  # two more are needed now
    run(explosion)
    assert run.guard.learning_rate_factor == 0.25


def test_run_is_stopped_when_lowering_did_not_help(run, tmp_path):
    run = run(max_lowerings=1)
    run(1.0, 2.0, 2.0, *[30.0] * 3)
    assert not run.control.should_training_stop
    run(30.0)
    assert run.control.should_training_stop
    assert re.fullmatch(
        r"Step 7: the gradient's norm 30 is over 10 times the median 2 of the last 3, although the learning rates had been "
        rf"halved 1 times; {tmp_path}/checkpoint-7 has the last good weights: start again with .* gradient_guard_factor\.",
        str(run.guard.stopped_by),
    )


def test_loss_scaler_of_fp16_looks_for_its_scale_undisturbed(run):
    run = run()
    run.args.fp16 = True
    assert run(*[math.inf] * 50, 1.0, 1.0, 1.0, 11.0) == [54]
    assert run.guard.num_skips == 1


def test_deepspeed_has_made_the_update_when_its_norm_is_known(run, caplog):
    run = run()
    run.args.deepspeed_plugin = object()
    assert run(1.0, 1.0, 1.0, 11.0) == []
    assert run.guard.skips == [4] and run.guard.norms == [1.0] * 3
    assert "DeepSpeed has clipped it (1 in 10 steps)" in caplog.text


# In training


class Snapshots(TrainerCallback):
    """The weights, and the optimizer's state, after each step."""

    def __init__(self):
        self.states = {}

    def on_step_end(self, args, state, control, model=None, optimizer=None, **kwargs):
        weights = [p.detach().clone() for p in model.parameters() if p.requires_grad]
        moments = [value.clone() for entry in optimizer.state.values() for value in entry.values()]
        self.states[state.global_step] = weights + moments

    def same_after(self, step: int) -> bool:
        """Whether the step changed nothing."""
        states = zip(self.states[step - 1], self.states[step], strict=True)
        return all(torch.equal(before, after) for before, after in states)


def logged(trainer, key) -> dict[int, float]:
    return {entry["step"]: entry[key] for entry in trainer.state.log_history if key in entry}


@pytest.fixture
def make_guarded(make_trainer):
    """A trainer whose losses explode in some steps, with a guard that makes up its mind early."""

    def make(factors, max_skips=2, max_lowerings=3, **arguments):
        trainer = make_trainer(**arguments)
        scale_losses(trainer, factors)
        guard = trainer.gradient_guard
        guard.min_norms, guard.max_skips, guard.max_lowerings = 2, max_skips, max_lowerings
        return trainer

    return make


@pytest.mark.parametrize("factor", [1e6, math.nan])
def test_skipped_update_changes_neither_weights_nor_moments(factor, make_guarded):
    trainer = make_guarded({3: factor}, max_steps=4, weight_decay=0.1, lr_scheduler_type="linear")
    snapshots = Snapshots()
    trainer.add_callback(snapshots)
    trainer.train()
    assert [snapshots.same_after(step) for step in (2, 3, 4)] == [False, True, False]
    assert list(logged(trainer, "learning_rate").values()) == pytest.approx([1e-2, 7.5e-3, 5e-3, 2.5e-3])
    assert logged(trainer, "skipped_updates") == {3: 1, 4: 1}


def test_lowered_learning_rates_are_those_of_every_group(make_guarded):
    rates = {"learning_rate": 1e-2, "lora_learning_rate": 1e-3, "lr_scheduler_type": "constant"}
    trainer = make_guarded({3: 1e6, 4: 1e6}, max_steps=6, **rates)
    trainer.train()
    first, *others = logged(trainer, "learning_rate").values()
    assert [rate / first for rate in others] == [1, 1, 1, 0.5, 0.5]
    assert {group["name"]: group["lr"] for group in trainer.optimizer.param_groups} == {
        "projector": 5e-3,
        "projector without decay": 5e-3,
        "lora": 5e-4,
    }
    assert trainer.train().global_step == 6 and trainer.gradient_guard.num_lowerings == 1  # each run begins anew


def test_resumed_run_equals_an_uninterrupted_one(make_guarded, tmp_path):
    # Skipped before the checkpoint, and after it; lowered by both together.
    settings = {"factors": {3: 1e6, 6: math.nan, 8: 1e6}, "num_train_epochs": 5}
    whole = make_guarded(**settings, folder="whole", save_strategy="steps", save_steps=4, save_total_limit=None)
    whole.train()
    resumed = make_guarded(**settings, folder="resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    assert whole.gradient_guard.num_skips == 3 and whole.gradient_guard.num_lowerings == 1
    assert resumed.gradient_guard.state() == whole.gradient_guard.state()
    assert losses_of(resumed) == losses_of(whole)
    assert logged(resumed, "learning_rate") == logged(whole, "learning_rate")
    for name, parameter in learned(whole).items():
        assert torch.equal(learned(resumed)[name], parameter), name


def test_checkpoint_from_before_there_was_a_guard_is_resumed(make_trainer, tmp_path):
    make_trainer(max_steps=2, save_strategy="steps", save_steps=1).train()
    file = tmp_path / "run" / "checkpoint-1" / "trainer_state.json"
    state = json.loads(file.read_text())
    del state["stateful_callbacks"]["GradientGuard"]
    file.write_text(json.dumps(state))
    trainer = make_trainer(max_steps=2, save_strategy="steps", save_steps=1)
    trainer.train(resume_from_checkpoint=str(file.parent))
    assert len(trainer.gradient_guard.norms) == 1


def test_stopped_run_leaves_the_last_good_weights(make_guarded, tmp_path):
    trainer = make_guarded({3: 1e6}, max_skips=1, max_lowerings=0, max_steps=4)
    snapshots = Snapshots()
    trainer.add_callback(snapshots)
    with pytest.raises(TrainingDiverged, match="^Step 3: .*checkpoint-3 has the last good weights"):
        trainer.train()
    assert snapshots.same_after(3) and not snapshots.same_after(2)
    stored = load_file(tmp_path / "run" / "checkpoint-3" / "model.safetensors")
    for name, parameter in learned(trainer).items():
        assert torch.equal(stored[name], parameter), name


@pytest.mark.parametrize("factor", [1.0, 0.5, -1.0, math.nan])
def test_factor_that_would_skip_every_other_update_is_refused(factor, tmp_path):
    with pytest.raises(ValueError, match="gradient_guard_factor is .*; it is above 1, or 0"):
        SpeechVerseTrainingArguments(output_dir=str(tmp_path), gradient_guard_factor=factor)


# Bad batches


def test_records_of_a_bad_batch_are_named_and_listed(make_trainer, tmp_path, caplog):
    batches = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    trainer = make_trainer(max_steps=3, **batches)
    scale_losses(trainer, {2: math.nan})
    trainer.train()
    assert trainer.gradient_guard.num_skips == 1
    assert logged(trainer, "bad_batches") == {2: 2, 3: 2}

    lines = [json.loads(line) for line in (tmp_path / "run" / "bad_batches.jsonl").read_text().splitlines()]
    assert [(line["step"], line["rank"], line["loss"]) for line in lines] == [(2, 0, "nan")] * 2
    bad = {record["audio"] for line in lines for record in line["records"]}
    assert len(bad) == 4 and bad < {one.sample.audio for one in trainer.train_dataset.checked}
    messages = [record.message for record in caplog.records if "the loss is" in record.message]
    for line, message in zip(lines, messages, strict=True):
        assert message == f"Step 2: the loss is nan for {', '.join(record['audio'] for record in line['records'])}."


def test_infinite_loss_with_a_finite_gradient_is_reported_too(tmp_path):
    batches, args = BadBatches(), SimpleNamespace(process_index=3, output_dir=str(tmp_path))
    batches.note(torch.tensor(1.0), [Sample("good.wav", (), "")])
    batches.note(torch.tensor(math.inf), [Sample("bad.wav", (), "")])
    assert batches.report(args, 5, together=False) == 1
    assert batches.report(args, 6, together=False) == 0  # it is said once
    [line] = map(json.loads, (tmp_path / "bad_batches.jsonl").read_text().splitlines())
    assert (line["rank"], line["loss"], line["records"][0]["audio"]) == (3, "inf", "bad.wav")


def test_many_records_are_named_in_part():
    samples = [Sample(f"{i}.wav", (), "yes", corpus="fsdd", key=f"clip-{i}") for i in range(11)]
    assert describe_samples(samples[:2]) == "fsdd clip-0 0.wav, fsdd clip-1 1.wav"
    assert describe_samples(samples[:8]).endswith("7.wav") and describe_samples(samples).endswith("7.wav and 3 more")
