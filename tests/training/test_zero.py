"""The trainer and the model under DeepSpeed's ZeRO, every parameter of ZeRO-3 partitioned, however small.

As a program, `test_zero.py SETTINGS.json`, it trains on every rank what its tests train in one process.
"""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import save_bases
from training_runs import run_on_two_ranks
from transformers import AutoModel, TrainerCallback

from speechverse import SpeechVerseForConditionalGeneration, SpeechVerseProcessor, TaskBank
from speechverse.processing.tasks_speechverse import Task
from speechverse.training.arguments import SpeechVerseTrainingArguments
from speechverse.training.curriculum import Stage
from speechverse.training.data.dataset import Collator, InstructionDataset
from speechverse.training.data.filters import FilterRules, check_samples
from speechverse.training.data.manifest import ManifestSource, load_samples
from speechverse.training.trainer import SpeechVerseTrainer


pytestmark = pytest.mark.slow
ZERO = {
    "train_micro_batch_size_per_gpu": "auto",
    "train_batch_size": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "bf16": {"enabled": "auto"},
    "zero_optimization": {"stage3_param_persistence_threshold": 0},
}


class Watcher(TrainerCallback):
    """Keeps what the model answers before the first step, and the learning rates that each step was made with."""

    def __init__(self, inputs):
        self.inputs, self.first_answers, self.rates = inputs, None, []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.first_answers = answer(model.eval(), self.inputs)

    def on_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        self.rates.append({group["name"]: group["lr"] for group in optimizer.param_groups})


class Trainer(SpeechVerseTrainer):
    """Its second checkpoint is the best."""

    def evaluate(self, *args, **kwargs):
        measured = super().evaluate(*args, **kwargs)
        return measured | {"eval_quality": -abs(self.state.global_step - 2)}


def train(settings: dict) -> dict:
    """Trains four steps of four samples, on one process or two; returns what is to be the same on any number."""
    processes = int(os.environ.get("WORLD_SIZE", 1))
    torch.manual_seed(0)
    bases = [Path(settings["foundations"]) / f"tiny-{settings[part]}" for part in ("audio", "text")]
    model = SpeechVerseForConditionalGeneration.from_foundations(*bases, lora_rank=2, layer_mix="learned")
    if settings["forget_bases"]:
        model.config.text_base = None
    tasks = TaskBank([Task(id="colour", name="colour-naming", tag="C", prompts=["which colour ?", "say it ."])])
    processor = SpeechVerseProcessor.for_model(model, tasks)
    samples = load_samples(ManifestSource(settings["manifest"], instruction="say it .", target="$answer"), tasks)
    checked = check_samples(samples, FilterRules(processor), workers=1)
    deepspeed = None
    if settings["stage"]:
        deepspeed = ZERO | {"zero_optimization": ZERO["zero_optimization"] | {"stage": settings["stage"]}}
    arguments = SpeechVerseTrainingArguments(
        output_dir=settings["output_dir"],
        max_steps=4,
        per_device_train_batch_size=4 // processes,
        per_device_eval_batch_size=2,
        learning_rate=1e-2,
        lora_learning_rate=5e-3,
        warmup_steps=0,
        lr_scheduler_type="linear",
        bf16=settings["bf16"],
        gradient_checkpointing=True,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        save_total_limit=None,
        load_best_model_at_end=True,
        metric_for_best_model="quality",
        greater_is_better=True,
        report_to="none",
        use_cpu=True,
        deepspeed=deepspeed,
    )
    inputs = processor(text=["which colour ?"] * 2, audio=[samples[1].audio, samples[6].audio])
    watcher = Watcher(inputs)
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=InstructionDataset(checked, processor),
        # The first rank's recordings are of two lengths, the second's of one.
        eval_dataset=InstructionDataset([checked[index] for index in (0, 5, 0, 0)], processor),
        data_collator=Collator(processor),
        processing_class=processor,
        callbacks=[watcher],
        stages=[Stage("align", trains=["projector"], steps=1), Stage("all", steps=3)],
    )
    trainer.train(resume_from_checkpoint=settings.get("resume"))
    trainer.save_model()
    refusal = ""
    try:
        model.save_pretrained(Path(settings["output_dir"]) / "partitioned")
    except ValueError as error:
        refusal = str(error)
    log = trainer.state.log_history
    return {
        "loss": [entry["loss"] for entry in log if "loss" in entry],
        "grad_norm": [entry["grad_norm"] for entry in log if "loss" in entry],
        "eval_loss": [entry["eval_loss"] for entry in log if "eval_loss" in entry],
        "rates": watcher.rates,
        "inputs": dict(inputs),
        "first_answers": watcher.first_answers,
        "answers": answer(model.eval(), inputs),
        "refusal": refusal,
        "computing": computing_weights(model),
    }


def answer(model, inputs) -> list[list[int]]:
    """Four beams, so that there is something to compare: a tiny model's first answer is soon over."""
    floats = next(model.parameters()).dtype
    inputs = {key: x.to(floats) if x.is_floating_point() else x for key, x in inputs.items()}
    return model.generate(**inputs, num_beams=4, num_return_sequences=4, min_new_tokens=3, max_new_tokens=6).tolist()


def computing_weights(model) -> dict[str, torch.Tensor]:
    """What learns as the forward pass sees it, brought together under ZeRO-3."""
    import deepspeed

    weights = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            with deepspeed.zero.GatheredParameters([parameter]):
                weights[name] = parameter.detach().clone()
    return weights


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("foundations")
    for audio, text in (("wavlm", "t5"), ("whisper", "llama"), ("moonshine", "t5")):
        save_bases(folder, audio, text)
    return folder


@pytest.fixture(scope="module")
def run(bases, manifest, tmp_path_factory):
    """Gives the results and the folder of a run on two processes, or of one without DeepSpeed; each is made once."""
    made = {}

    def run(stage, audio="wavlm", text="t5", bf16=False, forget_bases=False, resume=None):
        key = (stage, audio, text, bf16, forget_bases, resume)
        if key not in made:
            folder = tmp_path_factory.mktemp("run")
            settings = {"stage": stage, "audio": audio, "text": text, "bf16": bf16, "resume": resume and str(resume)}
            settings |= {"forget_bases": forget_bases}
            settings |= {"foundations": str(bases), "manifest": str(manifest), "output_dir": str(folder)}
            if stage:
                (folder / "settings.json").write_text(json.dumps(settings))
                run_on_two_ranks(__file__, folder / "settings.json")
                made[key] = torch.load(folder / "results.pt"), folder
            else:
                made[key] = train(settings), folder
        return made[key]

    return run


@pytest.mark.parametrize(
    "stage, audio, text",
    [(2, "wavlm", "t5"), (3, "wavlm", "t5"), (3, "whisper", "llama"), (3, "moonshine", "t5")],
)
def test_zero_makes_the_steps_of_one_process(stage, audio, text, run):
    found, folder = run(stage, audio, text)
    expected, folder_of_one = run(None, audio, text)
    assert found["loss"] == pytest.approx(expected["loss"], abs=1e-4) and len(found["loss"]) == 4
    assert found["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-3)
    assert found["eval_loss"] == pytest.approx(expected["eval_loss"], abs=1e-4) and len(found["eval_loss"]) == 4
    for step in (1, 2, 3, 4):
        adapter = load_file(folder / f"checkpoint-{step}" / "model.safetensors")
        for name, tensor in load_file(folder_of_one / f"checkpoint-{step}" / "model.safetensors").items():
            torch.testing.assert_close(adapter[name], tensor, atol=1e-4, rtol=0, msg=f"{name} at {step}")


@pytest.mark.parametrize("stage", [2, 3])
def test_groups_follow_their_own_learning_rates(stage, run):
    rates = run(stage)[0]["rates"]
    assert rates == run(None)[0]["rates"]
    assert [seen["projector"] for seen in rates] == pytest.approx([1e-2, 1e-2, 2e-2 / 3, 1e-2 / 3])
    assert [seen["lora"] for seen in rates] == pytest.approx([0, 5e-3, 1e-2 / 3, 5e-3 / 3])


@pytest.mark.parametrize("stage", [2, 3])
def test_best_model_is_loaded_at_the_end_and_saved(stage, run):
    results, folder = run(stage)
    saved = load_file(folder / "model.safetensors")
    best, last = (load_file(folder / f"checkpoint-{step}" / "model.safetensors") for step in (2, 4))
    for name, tensor in saved.items():
        assert torch.equal(tensor, best[name]) and torch.equal(results["computing"][name], best[name]), name
    assert any(not torch.equal(saved[name], last[name]) for name in saved)


@pytest.mark.parametrize("stage, audio, text", [(2, "wavlm", "t5"), (3, "wavlm", "t5"), (3, "whisper", "llama")])
def test_checkpoint_answers_as_the_partitioned_model_did(stage, audio, text, run, bases, monkeypatch):
    results, folder = run(stage, audio, text)
    expected, _ = run(None, audio, text)
    assert results["first_answers"] == expected["first_answers"]
    monkeypatch.setenv("SPEECHVERSE_FOUNDATIONS", str(bases))
    answers = answer(AutoModel.from_pretrained(folder), results["inputs"])
    assert answers == results["answers"] == expected["answers"]
    assert len({tuple(tokens) for tokens in answers}) > 1


@pytest.mark.parametrize("stage", [2, 3])
def test_resumed_run_equals_the_uninterrupted_one(stage, run):
    whole, folder = run(stage)
    resumed, resumed_folder = run(stage, resume=folder / "checkpoint-1")
    assert resumed["loss"] == whole["loss"] and resumed["rates"] == whole["rates"][1:]
    adapter = load_file(resumed_folder / "checkpoint-4" / "model.safetensors")
    for name, tensor in load_file(folder / "checkpoint-4" / "model.safetensors").items():
        assert torch.equal(adapter[name], tensor), name


@pytest.mark.parametrize("stage", [2, 3])
def test_checkpoint_of_a_bf16_run_holds_the_fp32_masters(stage, run):
    results, folder = run(stage, bf16=True)
    saved = load_file(folder / "model.safetensors")
    for name, computing in results["computing"].items():
        assert computing.dtype is torch.bfloat16 and saved[name].dtype is torch.float32
        assert torch.equal(saved[name].bfloat16(), computing), name
    rounded = [name for name, tensor in saved.items() if torch.equal(tensor, tensor.bfloat16().float())]
    assert len(rounded) < len(saved) / 2  # so they are more than what computes
    assert results["loss"] == pytest.approx(run(None)[0]["loss"], rel=1e-2)


@pytest.mark.parametrize("stage", [2, 3])
def test_model_without_known_bases_is_saved_whole(stage, run, monkeypatch):
    results, folder = run(stage, forget_bases=True)
    monkeypatch.delenv("SPEECHVERSE_FOUNDATIONS", raising=False)
    model = AutoModel.from_pretrained(folder)
    assert answer(model, results["inputs"]) == results["answers"] == run(None)[0]["answers"]


def test_partitioned_model_refuses_to_save_itself(run):
    assert "ZeRO-3 holds this model's weights in partitions" in run(3)[0]["refusal"]
    assert not run(2)[0]["refusal"]


if __name__ == "__main__":
    settings = json.loads(Path(sys.argv[1]).read_text())
    results = train(settings)
    if os.environ["RANK"] == "0":
        torch.save(results, Path(settings["output_dir"]) / "results.pt")
