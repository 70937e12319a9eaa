"""The projector aligned with token embeddings: the loss by brute force, what learns, and what training then starts from."""

import itertools
import json
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from training_runs import CONFIG
from transformers import TrainerCallback

from speechverse.training import align_projector as module
from speechverse.training.align_projector import (
    AlignmentArguments,
    RecordingLabel,
    build_trainer,
    fits,
    label_accuracies,
)
from speechverse.training.arguments import parse_run_config
from speechverse.training.data.filters import CheckedSample
from speechverse.training.train import build_model, prepare_run
from speechverse.training.train import build_trainer as build_run


@pytest.fixture
def align(environment, config_file, tmp_path, monkeypatch):
    """Makes the trainer of a run's projector; returns it with the run's parts."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def align(*arguments, config=config_file, **alignment):
        options = ["--output_dir", str(tmp_path / "run"), "--report_to", "none", *arguments]
        config = parse_run_config([str(config), *options])
        parts = prepare_run(config)
        return build_trainer(parts, AlignmentArguments(**alignment)), parts

    return align


def batch_of(trainer, count=3):
    return trainer.data_collator([trainer.train_dataset[index] for index in range(count)])


def test_loss_is_that_of_all_paths(align):
    trainer, _ = align(masked_share=0.0)
    aligner = trainer.model.double().eval()
    batch = batch_of(trainer)
    batch["input_values"] = batch["input_values"].double()
    with torch.no_grad():
        found = aligner(**batch)
        audio = {name: tensor for name, tensor in batch.items() if name != "tokens"}
        projected = aligner.model.get_audio_features(**audio, return_dict=True)
    embeddings = aligner.model.get_input_embeddings().weight.double()
    vocabulary = (aligner.classes > 0).nonzero()[:, 0].tolist()
    table = torch.stack([aligner.blank.detach(), *embeddings[vocabulary]])
    expected, paths = [], []
    for frames, real, tokens in zip(projected.pooler_output, projected.attention_mask, batch["tokens"], strict=True):
        frames = frames[real]
        cosines = torch.cosine_similarity(frames[:, None], table[None], dim=-1)
        scores = (cosines * aligner.log_scale.exp()).log_softmax(-1)
        said = [vocabulary.index(token) + 1 for token in tokens[tokens != -100].tolist()]
        kinds = sorted({0, *said})
        total = torch.tensor(-torch.inf, dtype=torch.float64)
        for path in itertools.product(kinds, repeat=len(frames)):
            collapsed = [kind for kind, before in zip(path, (None, *path), strict=False) if kind != before and kind]
            if collapsed == said:
                total = torch.logaddexp(total, scores[range(len(frames)), list(path)].sum())
        expected.append(-total / len(said) if total.isfinite() else torch.zeros_like(total))
        paths.append(scores.argmax(-1))
    assert any(loss > 0 for loss in expected)
    # The logits go through fp32, so the sums of thousands of paths agree to a part of it.
    torch.testing.assert_close(found["loss"].double(), torch.stack(expected).mean().detach(), atol=1e-5, rtol=1e-6)
    for row, path in zip(found["paths"], paths, strict=True):
        assert row[: len(path)].tolist() == path.tolist() and set(row[len(path) :].tolist()) <= {-100}


def test_gradient_is_that_of_all_classes(align):
    """Against PyTorch's loss over the whole vocabulary, of which a batch of one recording speaks a part."""
    trainer, _ = align(masked_share=0.0)
    aligner = trainer.model.eval()
    index = next(i for i in range(6) if len(trainer.train_dataset.tokens(i)) == 2)
    batch = trainer.data_collator([trainer.train_dataset[index]])
    learned = [p for p in aligner.parameters() if p.requires_grad]
    found = torch.autograd.grad(aligner(**batch)["loss"], learned)
    audio = {name: tensor for name, tensor in batch.items() if name != "tokens"}
    projected = aligner.model.get_audio_features(**audio, return_dict=True)
    table = torch.cat([aligner.blank[None], aligner.directions])
    cosines = torch.cosine_similarity(projected.pooler_output[0, :, None], table[None], dim=-1)
    log_probabilities = (cosines * aligner.log_scale.exp()).log_softmax(-1)
    targets = aligner.classes[batch["tokens"]]
    assert len(aligner.directions) > targets.numel()
    expected = torch.nn.functional.ctc_loss(
        log_probabilities[:, None], targets, torch.tensor([len(cosines)]), torch.tensor([targets.numel()])
    )
    for ours, theirs in zip(found, torch.autograd.grad(expected, learned), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


def test_projector_alone_learns_to_spell(align):
    trainer, parts = align(
        "--per_device_eval_batch_size", "4", alignment_epochs=60, alignment_learning_rate=2e-2, masked_share=0.0
    )
    before = {name: tensor.clone() for name, tensor in parts.model.state_dict().items()}
    first = trainer.evaluate(trainer.train_dataset)
    trainer.train()
    last = trainer.evaluate(trainer.train_dataset)
    assert last["eval_loss"] < 0.2 * first["eval_loss"] and last["eval_wer"] <= 0.5 < first["eval_wer"]
    for name, tensor in parts.model.state_dict().items():
        changed = not torch.equal(tensor, before[name])
        assert changed == name.startswith("multi_modal_projector."), name


def test_padding_and_masking(align):
    trainer, _ = align(masked_share=0.5)
    aligner = trainer.model.eval()
    together, alone = aligner(**batch_of(trainer)), aligner(**batch_of(trainer, 1))
    width = alone["paths"].shape[1]
    assert together["paths"][0, :width].tolist() == alone["paths"][0].tolist()
    assert torch.equal(aligner(**batch_of(trainer))["loss"], together["loss"])
    aligner.train()
    torch.manual_seed(0)
    losses = {aligner(**batch_of(trainer))["loss"].item() for _ in range(4)}
    assert "paths" not in aligner(**batch_of(trainer))
    assert len(losses) > 1  # other spans in every step
    batch = batch_of(trainer)
    audio = {name: batch[name] for name in ("input_values", "padding_mask")}
    lengths = batch["padding_mask"].sum(-1)
    assert len(set(lengths.tolist())) > 1
    zeroed = torch.stack(
        [(aligner._mask(audio)["input_values"] == 0) & (audio["input_values"] != 0) for _ in range(50)]
    )
    shares = zeroed.sum(-1) / lengths
    assert (shares <= 0.5 + 2 / lengths).all()  # each of its own length, not of the batch's
    assert (shares.mean(0) > 0.1).all()  # the shorter ones too


def test_training_starts_from_what_was_aligned(environment, config_file, tmp_path, monkeypatch, train_here):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    out = tmp_path / "run"
    options = ["--output_dir", str(out), "--report_to", "none", "--alignment_epochs", "2"]
    monkeypatch.setattr(sys, "argv", ["align_projector.py", str(config_file), *options])
    module.main()
    aligned = load_file(out / "aligned" / "model.safetensors")
    config = parse_run_config([str(config_file), "--adapter", str(out / "aligned")])
    model = build_model(config.model)
    for name, tensor in aligned.items():
        if name.startswith("multi_modal_projector."):
            torch.testing.assert_close(model.get_parameter(name), tensor)
    fresh = build_model(parse_run_config([str(config_file)]).model)
    name = "multi_modal_projector.blocks.0.conv.weight"
    assert not torch.equal(model.get_parameter(name), fresh.get_parameter(name))
    assert json.loads((out / "aligned" / "tasks.json").read_text())[0]["id"] == "asr"
    report = (out / "aligned" / "data_report.json").read_bytes()
    assert report == (out / "data_report.json").read_bytes() and json.loads(report)["train"]["kept"]
    named = ["--output_dir", str(tmp_path / "next"), "--adapter", str(out / "aligned")]
    stages = build_run(parse_run_config([str(config_file), *named])).curriculum.stages
    assert [stage.name for stage in stages] == ["LoRA joins, ASR", "all tasks"]
    trained = train_here(tmp_path / "trained")
    stages = build_run(parse_run_config([str(config_file), *named[:2], "--adapter", str(trained)])).curriculum.stages
    assert [stage.name for stage in stages] == ["all tasks"]


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(align, tmp_path):
    whole, parts = align(alignment_epochs=4)
    whole.train()
    expected = {name: tensor.clone() for name, tensor in whole.model.state_dict().items()}
    for folder in (tmp_path / "run" / "aligned").glob("checkpoint-*"):
        assert not any("audio_tower" in name for name in load_file(folder / "model.safetensors"))
    stopped, _ = align(alignment_epochs=4)
    stopped.args.output_dir = str(tmp_path / "stopped")
    half = stopped.args.num_train_epochs / 2
    stopped.add_callback(StopAt(half))
    stopped.train()
    resumed, _ = align(alignment_epochs=4)
    resumed.args.output_dir = str(tmp_path / "stopped")
    resumed.train(resume_from_checkpoint=True)
    for name, tensor in resumed.model.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], msg=name)


def test_checkpoint_of_another_projector_is_refused(align, tmp_path):
    align()[0]._save(tmp_path / "other")
    tensors = load_file(tmp_path / "other" / "model.safetensors")
    tensors["bias"] = tensors.pop("blank")
    save_file(tensors, tmp_path / "other" / "model.safetensors")
    with pytest.raises(ValueError, match="no checkpoint of this alignment: it has others of bias, blank"):
        align()[0]._load_from_checkpoint(tmp_path / "other")


def test_transcripts_that_do_not_fit_are_left_out_and_counted(align, caplog):
    _, parts = align()
    checked = parts.train_data.checked
    checked[0] = checked[0]._replace(audio_tokens=0)
    caplog.set_level("WARNING")
    trainer = build_trainer(parts, AlignmentArguments())
    assert "1 of 6 training transcripts are left out: they have more tokens" in caplog.text
    assert len(trainer.train_dataset) == 5 and checked[0] not in trainer.train_dataset.checked
    checked[:] = [one._replace(audio_tokens=0) for one in checked]
    with pytest.raises(ValueError, match="Every transcript of train_data has more tokens"):
        build_trainer(parts, AlignmentArguments())


@pytest.mark.parametrize("tokens, frames", [([1, 2, 3], 3), ([1, 1], 3), ([1, 1, 1, 2], 6), ([], 0)])
def test_repeated_tokens_need_a_frame_between_them(tokens, frames):
    sample = CheckedSample(None, None, audio_tokens=frames)
    assert fits(sample, tokens) and not fits(sample._replace(audio_tokens=frames - 1), tokens)


@pytest.mark.parametrize("wrong", [{"masked_share": 1.0}, {"masked_share": -0.1}, {"alignment_epochs": 0}])
def test_wrong_arguments_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} is {wrong[name]}; it is"):
        AlignmentArguments(**wrong)


def test_configuration_without_transcripts_is_refused(align, config_file, tmp_path):
    config = tmp_path / "other.yaml"
    config.write_text(CONFIG.replace("task: asr, ", "instruction: 'which colour ?', "))
    with pytest.raises(ValueError, match=r"train_data have no transcripts \(task asr\)"):
        align(config=config)


LABELLED = """
audio_base: tiny-wavlm
text_base: tiny-t5
lora_rank: 2
task_files: [$TASKS/tone.yaml, $TASKS/size.yaml]
train_data:
  - {manifest: $CORPUS/manifest.jsonl, where: {split: train}, task: asr, target: $answer}
  - {manifest: $TASKS/labelled.jsonl, task: tone, target: $tone}
  - {manifest: $TASKS/labelled.jsonl, task: size, target: $size}
max_steps: 6
per_device_train_batch_size: 4
learning_rate: 1e-2
logging_steps: 1
use_cpu: true
"""
TONE_TASK = 'id: tone\nname: tone-naming\ntag: Tone\nprompts: ["which colour ?"]\nlabels: {red: "", "blue . one": "", green: ""}\n'
SIZE_TASK = 'id: size\nname: size-naming\ntag: Size\nprompts: ["say it ."]\nlabels: {one: "", two: ""}\n'


@pytest.fixture
def labelled(manifest, tmp_path, monkeypatch):
    """A configuration of transcripts and of the labels of two tasks."""
    (tmp_path / "tone.yaml").write_text(TONE_TASK)
    (tmp_path / "size.yaml").write_text(SIZE_TASK)
    lines = [
        {"audio": str(manifest.parent / f"audio/{i}.wav"), "tone": ("red", "blue . one", "red")[i % 3], "size": size}
        for i, size in enumerate(("one", "two", "two", "one", "two", "one"))
    ]
    (tmp_path / "labelled.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setenv("TASKS", str(tmp_path))
    config = tmp_path / "labelled.yaml"
    config.write_text(LABELLED)
    return config


def test_labels_are_told_apart_within_their_task(align, labelled):
    """The loss by a loop over recordings, in float64."""
    trainer, parts = align(config=labelled, masked_share=0.0, label_tasks=["size", "tone"])
    aligner, dataset = trainer.model.eval(), trainer.train_dataset
    tokenizer, weight = parts.processor.tokenizer, aligner.model.get_input_embeddings().weight.detach().double()
    with torch.no_grad():
        aligner.label_bias += torch.tensor([0.3, -0.2, 0.1, 0.0])  # of blue, red, one, two: in the order of tasks
    classes = [("size", "one"), ("size", "two"), ("tone", "blue . one"), ("tone", "red")]  # nothing is green
    assert list(dataset.labels) == classes
    picked = [
        next(i for i in range(len(dataset)) if dataset.sample(i).task == task) for task in ("asr", "size", "tone")
    ]
    batch = trainer.data_collator([dataset[i] for i in picked])
    assert batch["label"].tolist()[0] == -100 and (batch["tokens"][1:] == -100).all()
    with torch.no_grad():
        found = aligner(**batch)
        audio = {name: tensor for name, tensor in batch.items() if name not in ("tokens", "label")}
        projected = aligner.model.get_audio_features(**audio, return_dict=True)
    expected = []
    for row in (1, 2):
        task, text = classes[batch["label"][row]]
        frames = projected.pooler_output[row][projected.attention_mask[row]].double()
        logits = []
        for index, (_, label) in enumerate(classes):
            ids = tokenizer(label, add_special_tokens=False).input_ids
            cosine = torch.cosine_similarity(frames.mean(0), weight[ids].mean(0), dim=0)
            logits.append(cosine * 30 + aligner.label_bias[index].double())
        own = [index for index, (other, _) in enumerate(classes) if other == task]
        expected.append(-torch.stack([logits[i] for i in own]).log_softmax(0)[own.index(classes.index((task, text)))])
        assert found["labels"][row] == max(own, key=lambda i: logits[i])
    assert found["labels"][0] == -100 and (found["paths"][1:] == -100).all()
    alone = aligner(**trainer.data_collator([dataset[picked[0]]]))
    assert alone["labels"].tolist() == [-100]
    labels_alone = aligner(**trainer.data_collator([dataset[i] for i in picked[1:]]))["loss"]
    torch.testing.assert_close(labels_alone.double(), torch.stack(expected).mean(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found["loss"], alone["loss"] + labels_alone, atol=1e-4, rtol=1e-5)


def test_projector_learns_labels_beside_words(align, labelled):
    trainer, _ = align(
        *("--per_device_eval_batch_size", "4"),
        config=labelled,
        alignment_epochs=60,
        alignment_learning_rate=1e-2,
        masked_share=0.0,
        label_tasks=["tone", "size"],
    )
    first = trainer.evaluate(trainer.train_dataset)
    trainer.train()
    last = trainer.evaluate(trainer.train_dataset)
    assert last["eval_tone_accuracy"] == 1.0 and last["eval_size_accuracy"] == 1.0
    assert last["eval_wer"] < first["eval_wer"] and last["eval_loss"] < 0.5 * first["eval_loss"]


@pytest.mark.parametrize("tasks", [["asr"], ["size"], ["asr", "tone"]])
def test_batch_of_one_kind_has_a_gradient(align, labelled, tasks):
    trainer, _ = align(config=labelled, label_tasks=["size", "tone"])
    dataset = trainer.train_dataset
    batch = trainer.data_collator([dataset[i] for i in range(len(dataset)) if dataset.sample(i).task in tasks])
    assert batch["tokens"].shape[1] >= 1  # accelerate gathers no tensor without an element
    aligner = trainer.model.train()
    aligner(**batch)["loss"].backward()
    gradients = {name: p.grad for name, p in aligner.named_parameters() if p.requires_grad and p.grad is not None}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert ("blank" in gradients) == ("asr" in tasks)
    assert any(gradient.any() for name, gradient in gradients.items() if "multi_modal_projector" in name)


def test_accuracy_is_by_task():
    labels = [
        RecordingLabel(task, text, ()) for task, text in (("size", "1"), ("size", "2"), ("tone", "a"), ("tone", "b"))
    ]
    right, likeliest = np.array([0, 1, 2, -100, 3, 2]), np.array([0, 0, 2, -100, 2, 2])
    assert label_accuracies(likeliest, right, labels) == {"size_accuracy": 0.5, "tone_accuracy": pytest.approx(2 / 3)}


def test_labels_of_validation_alone_are_wrong_answers(align, labelled):
    config = labelled.read_text() + "eval_data: [{manifest: $TASKS/other.jsonl, task: tone, target: $tone}]\n"
    lines = [json.loads(line) for line in (labelled.parent / "labelled.jsonl").read_text().splitlines()]
    (labelled.parent / "other.jsonl").write_text(json.dumps(lines[0] | {"tone": "green"}))
    labelled.write_text(config)
    trainer, _ = align("--per_device_eval_batch_size", "4", config=labelled, label_tasks=["tone"])
    assert "eval_tone_accuracy" in trainer.evaluate()


def test_tasks_without_labels_are_refused(align, labelled):
    with pytest.raises(
        ValueError, match="label_tasks names 'er', of which train_data have 0 labels, and two are least"
    ):
        align(config=labelled, label_tasks=["er"])
    with pytest.raises(ValueError, match="label_tasks names 'asr', but the answer 'yes' to it is no label"):
        align(config=labelled, label_tasks=["asr"])


def test_resumed_alignment_of_labels(align, labelled, tmp_path):
    arguments = {"config": labelled, "label_tasks": ["tone"], "alignment_epochs": 4}
    whole, _ = align(**arguments)
    whole.train()
    stopped, _ = align(**arguments)
    stopped.args.output_dir = str(tmp_path / "stopped")
    stopped.add_callback(StopAt(2))
    stopped.train()
    resumed, _ = align(**arguments)
    resumed.args.output_dir = str(tmp_path / "stopped")
    resumed.train(resume_from_checkpoint=True)
    for name, tensor in resumed.model.state_dict().items():
        torch.testing.assert_close(tensor, whole.model.state_dict()[name], msg=name)


class StopAt(TrainerCallback):
    """Stops after an epoch, as a machine that goes away after its checkpoint."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.epoch >= self.epoch


def test_classes_that_are_drawn_stand_for_all_others(align, monkeypatch):
    trainer, _ = align(masked_share=0.0)
    aligner, batch = trainer.model, batch_of(trainer, 2)
    aligner.log_scale.data.zero_()  # else a class or two outweigh all others, and the mean of few logarithms says little
    whole = aligner.eval()(**batch)["loss"].item()
    monkeypatch.setattr(module, "NUM_SAMPLED", 2)
    torch.manual_seed(0)
    aligner.train()
    spoken = aligner.classes[batch["tokens"][batch["tokens"] != -100]].unique()
    draws = [aligner._draw_classes(aligner.classes[batch["tokens"].clamp(min=0)]) for _ in range(20)]
    assert len({tuple(draw.tolist()) for draw in draws}) > 1
    for draw in draws:
        assert torch.isin(spoken, draw).all() and draw.tolist() == sorted(set(draw.tolist())) and draw[0] >= 1
    sampled = [aligner(**batch)["loss"].item() for _ in range(60)]
    assert sum(sampled) / len(sampled) == pytest.approx(whole, rel=0.1)
