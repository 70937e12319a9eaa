"""The trainer: what learns, what a checkpoint holds, resuming, and the loss under gradient accumulation."""

import functools
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_trainer import learned, losses_of

from speechverse import SpeechVerseForConditionalGeneration
from speechverse.training.data.dataset import InstructionDataset


def test_trainer_pushes_nothing(make_trainer, hub, hub_in_process):
    with pytest.raises(ValueError, match="push_to_hub is not supported"):
        make_trainer().push_to_hub()
    assert not hub.repositories


# What learns


def groups_of(trainer) -> dict[str, dict]:
    return {group["name"]: group for group in trainer.create_optimizer().param_groups}


@pytest.mark.parametrize("text", ["t5", "llama"])
def test_groups_hold_exactly_what_learns(text, make_trainer):
    trainer = make_trainer(text, learning_rate=3e-3, lora_learning_rate=5e-4, weight_decay=0.1)
    groups = groups_of(trainer)
    assert groups.keys() == {"projector", "projector without decay", "lora"}
    names = {parameter: name for name, parameter in trainer.model.named_parameters()}
    for name, group in groups.items():
        assert all((".lora_" in names[p]) == (name == "lora") for p in group["params"])
        assert group["lr"] == (5e-4 if name == "lora" else 3e-3)
    in_groups = [names[p] for group in groups.values() for p in group["params"]]
    assert sorted(in_groups) == sorted(learned(trainer))


def test_biases_norms_and_the_layer_mix_do_not_decay(make_trainer):
    trainer = make_trainer(weight_decay=0.1, model_arguments={"layer_mix": "learned"})
    names = {parameter: name for name, parameter in trainer.model.named_parameters()}
    for group in groups_of(trainer).values():
        for parameter in group["params"]:
            decays = parameter.ndim > 1  # convolutions and LoRA's matrices
            assert group["weight_decay"] == (0.1 if decays else 0.0), names[parameter]


@pytest.mark.parametrize("given, expected", [(None, 3e-3), (0.0, 0.0)])
def test_learning_rate_of_lora_is_the_projectors_unless_given(given, expected, make_trainer):
    trainer = make_trainer(learning_rate=3e-3, lora_learning_rate=given)
    assert groups_of(trainer)["lora"]["lr"] == expected


def test_both_learning_rates_follow_the_schedule(make_trainer):
    trainer = make_trainer(max_steps=4, learning_rate=1e-2, lora_learning_rate=1e-3, lr_scheduler_type="linear")
    trainer.create_optimizer_and_scheduler(4)
    trainer.optimizer.step()
    trainer.lr_scheduler.step()
    rates = {group["name"]: group["lr"] for group in trainer.optimizer.param_groups}
    assert (rates["projector"], rates["lora"]) == (pytest.approx(7.5e-3), pytest.approx(7.5e-4))


def test_without_lora_the_projector_learns_alone(make_trainer):
    trainer = make_trainer(model_arguments={"lora_rank": 0})
    assert groups_of(trainer).keys() == {"projector", "projector without decay"}


def test_encoder_that_learns_has_a_learning_rate_of_its_own(make_trainer):
    unfrozen = {"model_arguments": {"freeze_audio_tower": False}}
    groups = groups_of(make_trainer(learning_rate=1e-3, audio_tower_learning_rate=1e-5, **unfrozen))
    assert groups["audio_tower"]["lr"] == groups["audio_tower without decay"]["lr"] == 1e-5
    assert groups["projector"]["lr"] == 1e-3
    with pytest.raises(ValueError, match="set audio_tower_learning_rate"):
        groups_of(make_trainer(**unfrozen))


@pytest.mark.parametrize("freeze", [True, False])
def test_training_changes_what_learns_and_nothing_else(freeze, make_trainer):
    rates = {} if freeze else {"audio_tower_learning_rate": 1e-3}
    trainer = make_trainer(max_steps=2, model_arguments={"freeze_audio_tower": freeze}, **rates)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    changed = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert changed <= set(learned(trainer))
    assert any("multi_modal_projector" in name for name in changed) and any(".lora_B" in name for name in changed)
    assert any(name.startswith("audio_tower") for name in changed) is not freeze


@pytest.mark.parametrize("text", ["t5", "llama"])
def test_loss_falls(text, make_trainer):
    trainer = make_trainer(text, max_steps=12, per_device_train_batch_size=8)
    trainer.train()
    losses = losses_of(trainer)
    assert losses[-1] < losses[0] - 0.1


# Checkpoints


@pytest.fixture(scope="module")
def whole(make_trainer_in, tmp_path_factory):
    """Gives the trainer of a run of three epochs, with a checkpoint of every step; each is trained once."""

    @functools.cache
    def whole(text):
        saving = {"save_steps": 1, "save_strategy": "steps", "save_total_limit": None}
        trainer = make_trainer_in(tmp_path_factory.mktemp("whole"), text, num_train_epochs=3, **saving)
        trainer.train()
        return trainer

    return whole


def test_checkpoint_holds_the_adapter_alone(make_trainer, tmp_path):
    trainer = make_trainer(max_steps=2, save_steps=2, save_strategy="steps")
    trainer.train()
    folder = tmp_path / "run" / "checkpoint-2"
    stored = load_file(folder / "model.safetensors")
    assert stored.keys() == learned(trainer).keys()
    assert all(torch.equal(stored[name], parameter) for name, parameter in learned(trainer).items())
    assert not (folder / "training_args.bin").exists()
    assert {"config.json", "tokenizer.json", "tasks.json"} <= {file.name for file in folder.iterdir()}

    number = sum(p.numel() for p in learned(trainer).values())
    state = torch.load(folder / "optimizer.pt", weights_only=True)["state"]
    assert sum(entry["exp_avg"].numel() for entry in state.values()) == number
    assert (folder / "optimizer.pt").stat().st_size < 2 * 4 * number + 50_000


def test_checkpoint_loads_as_a_model(make_trainer, foundations, tmp_path, monkeypatch):
    trainer = make_trainer(max_steps=1, save_steps=1, save_strategy="steps")
    trainer.train()
    monkeypatch.setenv("SPEECHVERSE_FOUNDATIONS", str(foundations))
    loaded = SpeechVerseForConditionalGeneration.from_pretrained(tmp_path / "run" / "checkpoint-1")
    batch = trainer.data_collator([trainer.train_dataset[0], trainer.train_dataset[3]])
    torch.testing.assert_close(loaded(**batch).logits, trainer.model.eval()(**batch).logits)


@pytest.mark.parametrize("text", ["t5", "llama"])
@pytest.mark.parametrize("step", [1, 2, 3])  # an epoch has two steps: within the first, between, within the second
def test_resumed_run_equals_an_uninterrupted_one(text, step, whole, make_trainer):
    resumed = make_trainer(text, "resumed", num_train_epochs=3)
    resumed.train(resume_from_checkpoint=f"{whole(text).args.output_dir}/checkpoint-{step}")
    assert losses_of(resumed) == pytest.approx(losses_of(whole(text)), abs=1e-6) and len(losses_of(whole(text))) == 6
    for name, parameter in learned(whole(text)).items():
        torch.testing.assert_close(learned(resumed)[name], parameter, atol=1e-6, rtol=0, msg=name)


def test_every_pass_takes_every_sample_in_its_own_order_and_words(make_trainer, monkeypatch):
    trainer = make_trainer(num_train_epochs=3)
    drawn = []
    original = InstructionDataset.__getitem__
    monkeypatch.setattr(
        InstructionDataset, "__getitem__", lambda self, draw: drawn.append(draw) or original(self, draw)
    )
    trainer.train()
    steps = [[draw.index for draw in drawn if draw.step == step] for step in range(6)]
    passes = [steps[start] + steps[start + 1] for start in (0, 2, 4)]
    assert all(sorted(one) == list(range(8)) for one in passes)
    assert len({frozenset(steps[start]) for start in (0, 2, 4)}) > 1


@pytest.mark.parametrize(
    "tamper, message",
    [
        (lambda t: t.pop("multi_modal_projector.blocks.0.conv.bias"), r"blocks\.0\.conv\.bias is missing"),
        (lambda t: t.update(stowaway=torch.ones(1)), "stowaway is not of this adapter"),
        (lambda t: t.update({"multi_modal_projector.blocks.0.conv.bias": torch.ones(7)}), r"is \(7,\) and must be"),
    ],
)
def test_adapter_that_does_not_fit_is_refused_on_resume(tamper, message, whole, make_trainer, tmp_path):
    folder = Path(shutil.copytree(f"{whole('t5').args.output_dir}/checkpoint-1", tmp_path / "checkpoint-1"))
    tensors = load_file(folder / "model.safetensors")
    tamper(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=message):
        make_trainer(max_steps=2).train(resume_from_checkpoint=str(folder))


def test_best_model_is_loaded_at_the_end(make_trainer, tmp_path, monkeypatch):
    trainer = make_trainer(
        max_steps=3,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
    )
    measured = {1: 3.0, 2: 1.0, 3: 2.0}
    monkeypatch.setattr(trainer, "evaluate", lambda **arguments: {"eval_loss": measured[trainer.state.global_step]})
    trainer.train()
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-2")
    best, last = (load_file(tmp_path / "run" / f"checkpoint-{step}" / "model.safetensors") for step in (2, 3))
    bias = "multi_modal_projector.blocks.0.conv.bias"
    assert not torch.equal(best[bias], last[bias])
    for name, parameter in learned(trainer).items():
        assert torch.equal(parameter, best[name]), name


# The loss


def one_step(trainer) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss of the first step, and the change that it made. SGD without clipping: AdamW would hide a wrong scale."""
    before = learned(trainer)
    trainer.train()
    return losses_of(trainer)[0], {name: p - before[name] for name, p in learned(trainer).items()}


@pytest.mark.parametrize("text", ["t5", "llama"])
def test_accumulated_micro_batches_make_the_same_step_as_one_batch(text, make_trainer):
    settings = {"max_steps": 1, "optim": "sgd", "max_grad_norm": 0.0, "learning_rate": 0.1, "lora_learning_rate": 0.1}
    loss, update = one_step(make_trainer(text, **settings))
    scale = max(change.abs().max() for change in update.values())
    assert scale > 1e-3
    for size, accumulation in ((2, 2), (1, 4)):
        accumulated_loss, accumulated_update = one_step(
            make_trainer(text, per_device_train_batch_size=size, gradient_accumulation_steps=accumulation, **settings)
        )
        assert accumulated_loss == pytest.approx(loss, abs=1e-4)
        for name, change in update.items():
            torch.testing.assert_close(
                accumulated_update[name],
                change,
                atol=1e-4 * scale.item(),
                rtol=0,
                msg=f"{name}, {size} x {accumulation}",
            )


@pytest.mark.parametrize("text", ["t5", "llama"])
def test_logged_loss_is_the_mean_over_tokens(text, make_trainer):
    trainer = make_trainer(text, max_steps=1, per_device_train_batch_size=8)
    examples = [trainer.train_dataset[index] for index in range(8)]
    trainer.model.eval()
    sums, tokens = 0.0, 0
    for example in examples:
        number = sum(label != -100 for label in example["labels"])
        sums += trainer.model(**trainer.data_collator([example])).loss.item() * number
        tokens += number
    trainer.train()
    assert losses_of(trainer)[0] == pytest.approx(sums / tokens, abs=1e-4)
