"""Training with `input_modality: text`: transcripts in place of recordings, LoRA alone, and a checkpoint that says so."""

import json
import sys

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file
from tiny_models import noise
from transformers import AutoModelForSeq2SeqLM, pipeline

from speechverse import SpeechVerseForConditionalGeneration, TaskBank
from speechverse.training import align_projector
from speechverse.training.arguments import parse_run_config
from speechverse.training.data.corpus import load_corpus
from speechverse.training.data.corpus_samples import load_corpus_samples
from speechverse.training.data.dataset import Draw
from speechverse.training.data.transcripts import ask_about_text
from speechverse.training.train import build_trainer, train


CORPUS = """
id: shades
title: Colours that are said
licence: CC0-1.0
permissive: true
citation: nobody
access: Ask whoever wrote this test.
sources:
  - {kind: jsonl, root: $SHADES, files: rows.jsonl, splits: {train: {}}, columns: {audio: audio, text: text, colour: colour}}
tasks:
  asr: {answer: text}
  shade: {answer: colour}
"""
TASK = """
id: shade
name: colour-naming
tag: Shade
prompts: ["which colour ?", "say it , <audio> , which colour is said ?"]
answer_type: text
"""
CONFIG = """
audio_base: tiny-wavlm
text_base: tiny-t5
input_modality: text
lora_rank: 2
task_files: [$SHADES/shade.yaml]
train_data: [{corpus: $SHADES/shades.yaml, split: train, tasks: [shade]}]
eval_data: [{corpus: $SHADES/shades.yaml, split: train, tasks: [shade]}]
max_steps: 2
per_device_train_batch_size: 3
learning_rate: 1e-2
warmup_steps: 0
logging_steps: 1
eval_strategy: steps
eval_steps: 2
save_strategy: no
report_to: none
use_cpu: true
"""
SAID = ["say red .", "one blue .", "", "two green .", "no red"]


@pytest.fixture
def config(environment, tmp_path, monkeypatch):
    """A run on five rows whose recordings are not there; one has no words."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SHADES", str(tmp_path))
    rows = [{"audio": f"{i}.wav", "text": said, "colour": "red"} for i, said in enumerate(SAID)]
    for row in rows:
        (tmp_path / row["audio"]).write_bytes(b"no recording")  # which nobody is to open
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "shades.yaml").write_text(CORPUS.replace("$SHADES", str(tmp_path)))
    (tmp_path / "shade.yaml").write_text(TASK)
    (tmp_path / "run.yaml").write_text(CONFIG.replace("$SHADES", str(tmp_path)))
    return parse_run_config([str(tmp_path / "run.yaml"), "--output_dir", str(tmp_path / "run")])


def test_transcript_stands_where_the_recording_would():
    assert ask_about_text("stop it", "What is said?") == '"stop it" What is said?'
    assert ask_about_text("stop it", "In <audio>, what is said?") == 'In "stop it", what is said?'


def test_samples_have_the_words_of_their_recordings(config):
    corpus = load_corpus(config.train_data[0].corpus)
    samples, _ = load_corpus_samples(corpus, "train", config.tasks, ["shade"])
    assert [sample.transcript for sample in samples] == [
        "say red .",
        "one blue .",
        None,
        "two green .",
        "no red",
    ]


def test_samples_without_words_are_listed(config, tmp_path):
    trainer = build_trainer(config)
    assert len(trainer.train_dataset) == 4
    rows = [json.loads(line) for line in (tmp_path / "run" / "dropped.jsonl").open()]
    (row,) = [row for row in rows if row["part"] == "train"]
    assert row["reason"].startswith("no transcript: ") and row["audio"].endswith("2.wav")


def test_loss_is_that_of_the_llm_on_the_same_tokens(config):
    """Against transformers' T5 with peft's LoRA, on tokens made by hand."""
    trainer = build_trainer(config)
    model, processor = trainer.model, trainer.processing_class
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    llm = AutoModelForSeq2SeqLM.from_pretrained(model.base_folders["text"])
    lora = {name: value.clone() for name, value in model.language_model.state_dict().items() if "lora_" in name}
    inject_adapter_in_model(LoraConfig(**model.config.lora_config), llm, "default")
    assert not llm.load_state_dict(lora, strict=False).unexpected_keys
    losses = []
    for index, said in enumerate(text for text in SAID if text):
        wording = trainer.train_dataset.instruction(Draw(index))
        asked = {f'"{said}" which colour ?', f'say it , "{said}" , which colour is said ?'}
        assert wording in asked
        tokens = processor.tokenizer([wording], return_tensors="pt")
        labels = processor.tokenizer(["red"], return_tensors="pt").input_ids
        losses.append(llm.eval()(**tokens, labels=labels).loss)
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(4)])
    assert not {name for name in batch if "input_" in name and name != "input_ids"} and "padding_mask" not in batch
    batch.pop("sample_indices")
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(**batch).loss, torch.stack(losses).mean(), atol=1e-5, rtol=1e-5)


@pytest.fixture
def finished(config, tmp_path):
    trainer = build_trainer(config)
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    train(trainer, config)
    return tmp_path / "run", trainer, before


def test_lora_alone_learns_and_is_kept(finished):
    folder, trainer, before = finished
    moved = {name for name, now in trainer.model.named_parameters() if not torch.equal(now, before[name])}
    assert moved and all(".lora_" in name for name in moved)
    assert all(".lora_" in name for name in load_file(folder / "model.safetensors"))
    record = json.loads((folder / "run.json").read_text())
    assert record["config"]["input_modality"] == "text" and record["stages"][0]["trains"] == ["lora"]
    assert record["data"]["train"]["dropped"] == {"no transcript": 1}


def test_checkpoint_answers_about_text_and_refuses_recordings(finished):
    folder, trainer, _ = finished
    assert json.loads((folder / "config.json").read_text())["input_modality"] == "text"
    assert not (folder / "README.md").exists()  # a draft would tell how to ask it about recordings
    loaded = SpeechVerseForConditionalGeneration.from_pretrained(folder)
    inputs = trainer.processing_class('"say red ." which colour ?')
    labels = trainer.processing_class.tokenizer(["red"], return_tensors="pt").input_ids
    expected = trainer.model.eval()(**inputs, labels=labels).logits
    assert torch.equal(loaded(**inputs, labels=labels).logits, expected)
    with pytest.raises(ValueError, match="learned from transcripts alone"):
        pipeline("speech-instruction", model=str(folder))({"array": noise(0.5), "sampling_rate": 16_000}, "say it .")


def audio_model(environment, **kwargs):
    bases = environment["SPEECHVERSE_FOUNDATIONS"]
    return SpeechVerseForConditionalGeneration.from_foundations(
        f"{bases}/tiny-wavlm", f"{bases}/tiny-t5", lora_rank=2, **kwargs
    )


def test_model_that_listens_starts_from_what_text_taught(finished, environment, tmp_path):
    folder, _, _ = finished
    model = audio_model(environment, layer_mix="learned")  # text says nothing about the projector
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.start_from_adapter(folder)
    learned = load_file(folder / "model.safetensors")
    assert learned and all(".lora_" in name for name in learned)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, learned.get(name, before[name]), msg=name)
    model.save_pretrained(tmp_path)
    assert load_file(tmp_path / "model.safetensors").keys() > learned.keys()


def test_alignment_takes_the_lora_that_text_taught(finished, environment, config_file, tmp_path, monkeypatch):
    folder, _, _ = finished
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    options = ["--output_dir", str(tmp_path / "run"), "--report_to", "none", "--adapter"]
    config = parse_run_config([str(config_file), *options, str(folder)])
    stages = build_trainer(config).curriculum.stages
    assert [stage.name for stage in stages] == ["projector on ASR", "LoRA joins, ASR", "all tasks"]
    monkeypatch.setattr(
        sys, "argv", ["align_projector.py", str(config_file), "--alignment_epochs", "2", *options, str(folder)]
    )
    align_projector.main()
    aligned, learned = (load_file(at / "model.safetensors") for at in (tmp_path / "run" / "aligned", folder))
    for name, tensor in learned.items():
        torch.testing.assert_close(aligned[name], tensor, msg=name)
    stages = build_trainer(
        parse_run_config([str(config_file), *options, str(tmp_path / "run" / "aligned")])
    ).curriculum
    assert [stage.name for stage in stages.stages] == ["all tasks"]
    tasks = TaskBank.from_json(tmp_path / "run" / "aligned" / "tasks.json")
    assert {task.id for task in tasks} == {"asr", "shade"}  # what the LLM has learned before is not forgotten


def test_adapters_of_the_other_modality_do_not_fit(finished, environment, tmp_path):
    folder, trainer, _ = finished
    model = audio_model(environment)
    with pytest.raises(ValueError, match="has input_modality=text, this model audio"):
        model.load_adapter(folder, "text")  # it has no projector to switch to
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has input_modality=audio, this model text"):
        trainer.model.start_from_adapter(tmp_path)


@pytest.mark.parametrize(
    "change, message",
    [
        (("input_modality: text", "input_modality: txt"), "key input_modality is 'txt'; it is one of audio, text"),
        (("lora_rank: 2", "lora_rank: 0"), "input_modality: text trains LoRA and nothing else"),
        (("lora_rank: 2", "freeze_audio_tower: false"), "input_modality: text trains LoRA and nothing else"),
        (("lora_rank: 2", "cache_features: true"), "cache_features is about recordings"),
    ],
)
def test_what_text_cannot_have_is_refused(change, message, config, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(file.read_text().replace(*change))
    with pytest.raises(ValueError, match=message):
        parse_run_config([str(file)])


def test_stage_cannot_train_the_projector(config, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(file.read_text() + "curriculum: [{name: a, trains: [projector], steps: 2}]\n")
    with pytest.raises(ValueError, match="trains projector, which cannot learn"):
        build_trainer(parse_run_config([str(file), "--output_dir", str(tmp_path / "run")]))
