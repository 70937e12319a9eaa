"""A whole run through its stages on tiny models: what learns when, what is logged, and that a resumed run is the same run."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

from speechverse.training.curriculum import Plateau, Stage
from speechverse.training.data.draws import StepDraws
from speechverse.training.data.sampler import MixtureBatchSampler
from speechverse.training.mixture import Mixture, MixtureArguments, MixtureDataset


STAGES = [
    Stage("align", tasks=["asr"], trains=["projector"], steps=3),
    Stage("join", tasks=["asr"], steps=4),
    Stage("all", steps=5),
]


EVERY_STEP = {"save_steps": 1, "save_strategy": "steps", "save_total_limit": None}


@pytest.fixture(scope="module")
def make_staged_in(make_trainer_in):
    """A trainer, in a given folder, of 16 samples of two tasks, in the paper's three stages."""

    def make(folder, stages=STAGES, mixture=None, **arguments):
        datasets = [
            MixtureDataset("noise/asr", ("asr",), range(0, 8)),
            MixtureDataset("noise/er", ("er",), range(8, 16)),
        ]
        settings = {"warmup_steps": 2, "lr_scheduler_type": "linear", "weight_decay": 0.1}
        return make_trainer_in(
            folder,
            task_names=("asr", "er"),
            stages=stages,
            mixture=Mixture(datasets, mixture),
            **settings | arguments,
        )

    return make


@pytest.fixture
def make_staged(make_staged_in, tmp_path):
    """The same in a folder of the test's own."""
    return lambda folder="run", *args, **arguments: make_staged_in(tmp_path / folder, *args, **arguments)


@pytest.fixture(scope="module")
def whole(make_staged_in, tmp_path_factory):
    """The trainer of a run that ended, with a checkpoint of every step."""
    trainer = make_staged_in(tmp_path_factory.mktemp("whole"), **EVERY_STEP)
    trainer.train()
    return trainer


class Watch(TrainerCallback):
    """Keeps the learned weights after every step."""

    def __init__(self):
        self.weights = []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.weights.append({n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad})


def watched(trainer, **arguments):
    watch = Watch()
    trainer.add_callback(watch)
    trainer.train(**arguments)
    return watch.weights


def logged(trainer, key):
    return [entry[key] for entry in trainer.state.log_history if key in entry]


def test_lora_stays_zero_until_it_joins_and_the_bases_always(make_staged):
    def digest(model):
        frozen = hashlib.sha256()
        for name, tensor in model.state_dict().items():
            if ".lora_" not in name and not name.startswith("multi_modal_projector"):
                frozen.update(name.encode() + tensor.numpy().tobytes())
        return frozen.hexdigest()

    trainer = make_staged()
    before, start = digest(trainer.model), {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    weights = watched(trainer)
    for step, learned in enumerate(weights):
        for name, tensor in learned.items():
            if ".lora_B" in name:
                assert tensor.count_nonzero() == 0 if step < 4 else tensor.count_nonzero() > 0, (step, name)
            if ".lora_A" in name and step < 3:
                assert torch.equal(tensor, start[name]), (step, name)  # no weight decay either
    assert not torch.equal(
        weights[0]["multi_modal_projector.blocks.0.conv.weight"],
        weights[2]["multi_modal_projector.blocks.0.conv.weight"],
    )
    assert digest(trainer.model) == before


def test_first_updates_of_lora_are_those_of_a_fresh_adam(make_staged):
    """The first step of Adam moves every weight that has a gradient by the learning rate. With the averages of the zeros before it
    would be several times that."""
    stages = [STAGES[0], Stage("join", tasks=["asr"], steps=2, warmup_steps=0)]
    weights = watched(make_staged(stages=stages, weight_decay=0.0, lr_scheduler_type="constant"))
    moved = [
        (weights[3][name] - weights[2][name]).abs() for name in weights[0] if ".lora_B" in name
    ]  # step 3 is the first with LoRA
    moved = torch.cat([change.flatten() for change in moved])
    assert moved[moved > 1e-4].median().item() == pytest.approx(1e-2, rel=0.02) and moved.max() < 1.01e-2


def test_stages_tasks_and_rates_are_logged(whole):
    assert logged(whole, "stage") == [1] * 3 + [2] * 4 + [3] * 5
    assert logged(whole, "learning_rate_lora")[:5] == pytest.approx([0, 0, 0, 0, 0.5e-2])
    assert logged(whole, "learning_rate_projector")[:4] == pytest.approx(
        [0, 1e-2, 1e-2, 1e-2]
    )  # of 3 steps, one warms up
    assert len(logged(whole, "samples_asr")) == 12 and len(logged(whole, "loss_er")) <= 5
    for entry in whole.state.log_history[:-1]:
        drawn = {task: entry.get(f"samples_{task}", 0) for task in ("asr", "er")}
        assert sum(drawn.values()) == 4 and (entry["stage"] == 3 or not drawn["er"])
        assert 0 <= entry["padding"] < 1 and entry["seconds_asr"] > 0.1 * drawn["asr"]
    assert whole.state.log_history[-2]["epoch"] == pytest.approx(12 * 4 / 16)


def test_losses_by_task_add_up_to_the_loss(make_staged):
    trainer = make_staged(stages=[Stage("all", steps=6)])
    trainer.train()
    labels = [one.label_tokens for one in trainer.train_dataset.checked]
    for step, entry in enumerate(trainer.state.log_history[:-1]):
        tokens = {"asr": 0, "er": 0}
        for index in trainer.planner.draws[step]:
            tokens["asr" if index < 8 else "er"] += labels[index]
        total = sum(entry[f"loss_{task}"] * number for task, number in tokens.items() if number)
        assert total / sum(tokens.values()) == pytest.approx(entry["loss"], abs=1e-5)


def test_validation_losses_are_the_means_over_the_tokens_of_each_task(make_staged):
    trainer = make_staged(per_device_eval_batch_size=3)
    found = trainer.evaluate()
    trainer.model.eval()
    expected = {}
    for task in ("asr", "er"):
        total = tokens = 0
        for index in range(len(trainer.eval_dataset)):
            if trainer.eval_dataset.sample(index).task == task:
                batch = trainer.data_collator([trainer.eval_dataset[index]])
                batch.pop("sample_indices")
                number = int((batch["labels"] != -100).sum())
                total, tokens = total + trainer.model(**batch).loss.item() * number, tokens + number
        expected[task] = total / tokens
    assert {task: found[f"eval_{task}_loss"] for task in expected} == pytest.approx(expected, abs=1e-5)
    assert found["eval_loss"] == pytest.approx(sum(expected.values()) / 2, abs=1e-5)


# The same run, however it is run


def final_weights(trainer):
    return {name: p.detach() for name, p in trainer.model.named_parameters() if p.requires_grad}


def assert_same_run(found, expected, from_step=0):
    steps = {entry["step"]: entry["loss"] for entry in expected.state.log_history if "loss" in entry}
    again = {entry["step"]: entry["loss"] for entry in found.state.log_history if "loss" in entry}
    assert {s: loss for s, loss in again.items() if s > from_step} == {
        s: loss for s, loss in steps.items() if s > from_step
    }
    for name, parameter in final_weights(expected).items():
        assert torch.equal(final_weights(found)[name], parameter), name


@pytest.mark.parametrize("step", [2, 3, 5, 7, 11])  # 3 and 7 are the stages' ends
def test_resumed_run_is_bit_for_bit_the_uninterrupted_one(step, whole, make_staged):
    resumed = make_staged("resumed")
    resumed.train(resume_from_checkpoint=f"{whole.args.output_dir}/checkpoint-{step}")
    assert resumed.state.global_step == whole.state.global_step == 12
    assert_same_run(resumed, whole)


DECIDING = [
    Stage("align", tasks=["asr"], trains=["projector"], steps=10, until=Plateau(1, "asr")),
    Stage("all", steps=4),
]


@pytest.fixture(scope="module")
def make_deciding(make_staged_in):
    """The validation loss is made to rise at step 6, which ends the first stage there, four steps before its time; the mixture
    follows the losses as well."""

    def make(folder, **arguments):
        mixture = MixtureArguments(adaptive=0.5)
        trainer = make_staged_in(folder, DECIDING, mixture, eval_strategy="steps", eval_steps=2, **arguments)
        losses = {2: (3.0, 4.0), 4: (2.0, 4.0), 6: (2.5, 3.9), 8: (2.0, 2.0), 10: (2.0, 2.0)}

        def evaluate(*args, **kwargs):
            asr, er = losses[trainer.state.global_step]
            metrics = {"eval_asr_loss": asr, "eval_er_loss": er, "eval_loss": (asr + er) / 2}
            trainer.control = trainer.callback_handler.on_evaluate(
                trainer.args, trainer.state, trainer.control, metrics
            )
            return metrics

        trainer.evaluate = evaluate
        return trainer

    return make


@pytest.fixture(scope="module")
def decided(make_deciding, tmp_path_factory):
    trainer = make_deciding(tmp_path_factory.mktemp("decided"), **EVERY_STEP)
    trainer.train()
    return trainer


@pytest.mark.parametrize("step", [2, 5, 7])
def test_decisions_are_resumed(step, decided, make_deciding, tmp_path):
    assert decided.state.global_step == 10 and logged(decided, "stage") == [1] * 6 + [2] * 4
    assert [s for s, _ in decided.mixture.adjustments] == [4, 6, 8]
    resumed = make_deciding(tmp_path)
    resumed.train(resume_from_checkpoint=f"{decided.args.output_dir}/checkpoint-{step}")
    assert_same_run(resumed, decided)
    assert resumed.curriculum.early_ends == {0: 6}
    record = resumed.curriculum.record(10)
    assert record[0]["end"] == "plateau of the validation loss" and record[1]["first_step"] == 6


def test_last_stage_that_ends_early_ends_the_run(make_staged, tmp_path, monkeypatch):
    stages = [Stage("only", steps=40, until=Plateau(2))]
    trainer = make_staged("run", stages, eval_strategy="steps", eval_steps=2, save_strategy="steps", save_steps=40)
    metrics = {"eval_asr_loss": 1.0, "eval_er_loss": 1.0}

    def evaluate(*args, **kwargs):
        trainer.control = trainer.callback_handler.on_evaluate(trainer.args, trainer.state, trainer.control, metrics)
        return metrics

    monkeypatch.setattr(trainer, "evaluate", evaluate)
    trainer.train()
    assert trainer.state.global_step == 6 and (tmp_path / "run" / "checkpoint-6").is_dir()


@pytest.mark.parametrize("workers", [1, 3])
def test_loader_workers_change_nothing(workers, make_staged):
    stages = [Stage("align", tasks=["asr"], trains=["projector"], steps=2), Stage("all", steps=3)]
    alone = make_staged("alone", stages)
    alone.train()
    helped = make_staged("helped", stages, dataloader_num_workers=workers, dataloader_prefetch_factor=4)
    helped.train()
    assert_same_run(helped, alone)


@pytest.mark.parametrize("world_size, accumulation", [(1, 4), (2, 2), (4, 1)])
def test_ranks_share_a_step_out_among_them(world_size, accumulation, make_staged):
    trainer = make_staged(per_device_train_batch_size=2, gradient_accumulation_steps=4)  # 8 samples, 4 micro-batches
    planned = {}
    by_rank = [
        list(MixtureBatchSampler(trainer.planner, 5, lambda: 0, planned.__setitem__, rank, world_size))
        for rank in range(world_size)
    ]
    draws = StepDraws(trainer.curriculum, trainer.mixture, 8, trainer.args.seed)
    for step in range(5):
        taken = [
            draw.index
            for batches in by_rank
            for batch in batches[step * accumulation : (step + 1) * accumulation]
            for draw in batch
        ]
        assert sorted(taken) == sorted(draws[step]) and len(set(taken)) == 8
        # A step's micro-batches are the same ones, whoever takes them: so are its gradients.
        assert [
            batch for place in range(accumulation) for batch in [b[step * accumulation + place] for b in by_rank]
        ] == (planned[step].micro_batches)


# Checkpoints


def test_best_checkpoint_is_of_the_last_stage(make_staged, tmp_path, monkeypatch):
    stages = [Stage("align", tasks=["asr"], trains=["projector"], steps=4), Stage("all", steps=8)]
    steps = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    trainer = make_staged(
        stages=stages, load_best_model_at_end=True, metric_for_best_model="eval_loss", save_total_limit=2, **steps
    )
    losses = dict(zip(range(2, 14, 2), [0.1, 0.2, 5.0, 3.0, 4.0, 4.5], strict=True))
    monkeypatch.setattr(trainer, "evaluate", lambda **arguments: {"eval_loss": losses[trainer.state.global_step]})
    trainer.train()
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-8")
    assert sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*")) == ["checkpoint-12", "checkpoint-8"]


def test_state_says_what_was_decided(whole):
    state = json.loads(Path(whole.args.output_dir, "checkpoint-4", "trainer_state.json").read_text())
    assert state["stateful_callbacks"]["CurriculumCallback"]["attributes"]["early_ends"] == {}
    assert state["stateful_callbacks"]["MixtureCallback"]["attributes"] == {
        "adjustments": [],
        "last_losses": [],
        "sizes": {"noise/asr": 8, "noise/er": 8},
    }


def test_epochs_to_save_at_are_not_mixed_with_steps_to_evaluate_at(make_staged):
    with pytest.raises(ValueError, match="save_strategy: epoch needs eval_strategy: epoch or no"):
        make_staged(eval_strategy="steps", eval_steps=2, save_strategy="epoch")


def test_checkpoint_of_another_run_is_no_obstacle(whole, make_staged, tmp_path):
    """A checkpoint without our state, as another version may have written, starts the curriculum where its step is."""
    shutil.copytree(f"{whole.args.output_dir}/checkpoint-5", tmp_path / "old")
    state = json.loads((tmp_path / "old" / "trainer_state.json").read_text())
    state["stateful_callbacks"] = {}
    (tmp_path / "old" / "trainer_state.json").write_text(json.dumps(state))
    resumed = make_staged("resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "old"))
    assert_same_run(resumed, whole)
