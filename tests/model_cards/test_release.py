"""What is published is complete, fits together, and holds nothing that stays at home."""

import json
import shutil
import sys

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from tiny_models import noise, save_bases, tiny_model, tiny_processor

from speechverse import SpeechVerseForConditionalGeneration, SpeechVerseProcessor, Task, TaskBank
from speechverse.model_cards import publish
from speechverse.model_cards.release import write_release
from speechverse.modeling_speechverse.base_checkpoints import fingerprint


CODE = {
    "adapter_checkpoints.py",
    "audio_encoders.py",
    "audio_speechverse.py",
    "base_checkpoints.py",
    "configuration_speechverse.py",
    "frozen_parts.py",
    "modeling_speechverse.py",
    "pipeline_speechverse.py",
    "placement.py",
    "processing_speechverse.py",
    "tasks_speechverse.py",
}
TASKS = TaskBank([Task("er", "emotion-recognition", "Emotion", ["which colour ?"], {"red": "", "blue": ""})])


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return save_bases(tmp_path_factory.mktemp("bases"))


@pytest.fixture
def checkpoint(bases, tmp_path):
    """A run's folder, with what a run leaves beside its checkpoint."""
    folder = tmp_path / "run"
    torch.manual_seed(0)
    model = SpeechVerseForConditionalGeneration.from_foundations(*map(str, bases), lora_rank=2)
    model.save_pretrained(folder)
    SpeechVerseProcessor.for_model(model, TASKS).save_pretrained(folder)
    config = {
        "learning_rate": 1e-3,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "output_dir": str(folder),
        "manifest": "$SPEECHVERSE_DATA/calls.jsonl",
    }
    run = {"config": config, "seed": 0, "steps": 7, "trainable_parameters": 1234}
    (folder / "run.json").write_text(json.dumps(run))
    row = {"instruction": "which colour ?", "samples": 10, "skipped": [], "accuracy": 0.8, "uar": 0.75}
    results = {
        "results": [row],
        "fingerprint": fingerprint(folder),
        "date": "2026-01-02",
        "command": ["python", "evaluation/run.py", "--model", str(folder)],
        "hardware": "2 CPU cores",
        "versions": {"torch": "2"},
    }
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "answers.jsonl").write_text('{"audio": "secret.wav"}\n')
    (folder / "optimizer.pt").write_bytes(b"pickle")
    (folder / "checkpoint-7").mkdir()
    return folder


def release(checkpoint, tmp_path, **arguments):
    folder = tmp_path / "release"
    folder.mkdir()
    write_release(checkpoint, folder, repo_id="org/tiny", **arguments)
    return folder


def test_it_is_complete_and_nothing_else(checkpoint, tmp_path):
    folder = release(checkpoint, tmp_path)
    data = {"config.json", "generation_config.json", "model.safetensors", "processor_config.json", "tasks.json"}
    rest = {"tokenizer.json", "tokenizer_config.json", "README.md", "results.json", "run.json"}
    assert {file.name for file in folder.iterdir()} == CODE | data | rest
    assert not any(str(tmp_path) in file.read_text() for file in folder.iterdir() if file.suffix in (".json", ".md"))


def test_the_bases_need_not_be_there_and_the_answers_are_the_same(checkpoint, bases, tmp_path, monkeypatch):
    def logits(folder):
        model = SpeechVerseForConditionalGeneration.from_pretrained(folder, audio_base=bases[0], text_base=bases[1])
        inputs = SpeechVerseProcessor.from_pretrained(folder)("which colour ?", noise(1.0), sampling_rate=16_000)
        return model(**inputs, labels=torch.tensor([[6, 1]])).logits

    folder = release(checkpoint, tmp_path)  # nothing says here where the bases are
    assert torch.equal(logits(folder), logits(checkpoint))


def test_weights_can_be_rounded(checkpoint, tmp_path):
    published = load_file(release(checkpoint, tmp_path, dtype="bfloat16") / "model.safetensors")
    saved = load_file(checkpoint / "model.safetensors")
    assert published.keys() == saved.keys()
    assert all(torch.equal(published[key], saved[key].bfloat16()) for key in saved)
    assert "before they were stored as bfloat16" in (tmp_path / "release" / "README.md").read_text()


def test_card_says_what_it_is(checkpoint, bases, tmp_path):
    card = ModelCard.load(release(checkpoint, tmp_path, license="cc-by-4.0") / "README.md")
    assert card.data.library_name == "transformers" and card.data.license == "cc-by-4.0"
    assert card.data.pipeline_tag == "audio-text-to-text" and "speechverse" in card.data.tags
    assert card.data.base_model is None  # these bases are folders: the Hub does not know them
    assert "speechverse-foundations --out foundations tiny-wavlm tiny-t5" in card.text
    for folder in bases:
        assert fingerprint(folder)[:16] in card.text
    assert fingerprint(tmp_path / "release")[:16] in card.text
    assert 'pipeline("speech-instruction", model="org/tiny", trust_remote_code=True)' in card.text
    assert "| which colour ? | 10 | 80.0 % | 75.0 % |" in card.text and "2026-01-02" in card.text
    assert "| `er` | emotion-recognition | red, blue | which colour ? |" in card.text
    assert "7 steps, seed 0, 1,234 parameters" in card.text


def test_hub_bases_are_linked(checkpoint, tmp_path):
    config = json.loads((checkpoint / "config.json").read_text())
    config["audio_base"]["id"], config["text_base"]["id"] = "org/ears", "org/mind"
    (checkpoint / "config.json").write_text(json.dumps(config))
    card = ModelCard.load(release(checkpoint, tmp_path) / "README.md")
    assert card.data.base_model == ["org/ears", "org/mind"] and card.data.base_model_relation == "adapter"
    assert "speechverse-foundations" not in card.text


def test_whole_model_is_published_whole(tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path / "run")
    tiny_processor(model).save_pretrained(tmp_path / "run")
    folder = release(tmp_path / "run", tmp_path)
    again = SpeechVerseForConditionalGeneration.from_pretrained(folder)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(model.parameters(), again.parameters(), strict=True))
    assert "whole model" in (folder / "README.md").read_text()


def remove(name):
    return lambda folder: (folder / name).unlink()


def without_weights_of_the_end(folder):
    """A run that was stopped: only its last checkpoint is whole."""
    for file in list(folder.iterdir()):
        if file.is_file():
            shutil.move(file, folder / "checkpoint-7")


def with_nan(folder):
    weights = load_file(folder / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] = float("nan")
    save_file(weights, folder / "model.safetensors")


def without_a_key(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["multi_modal_projector.blocks.0.conv.weight"]
    save_file(weights, folder / "model.safetensors")


def cut_short(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def trained_on(folder):
    weights = load_file(folder / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, folder / "model.safetensors")


def with_another_processor(folder):
    config = json.loads((folder / "processor_config.json").read_text())
    config["projector_convolutions"][0][1] = 3
    (folder / "processor_config.json").write_text(json.dumps(config))


def of_a_later_format(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"format_version": 99}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (remove("model.safetensors"), "lacks model.safetensors"),
        (remove("tasks.json"), "lacks tasks.json"),
        (remove("tokenizer_config.json"), "lacks tokenizer_config.json"),
        (without_weights_of_the_end, "The run did not finish: resume it, or publish .*checkpoint-7"),
        (with_nan, "NaN"),
        (without_a_key, "blocks.0.conv.weight is missing"),
        (cut_short, "cut short"),
        (trained_on, "measured on other weights"),
        (with_another_processor, "projector_convolutions"),
        (of_a_later_format, "format 99"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_not_whole_is_refused(checkpoint, tmp_path, damage, words):
    damage(checkpoint)
    with pytest.raises(ValueError, match=words):
        release(checkpoint, tmp_path)


def test_dry_run_leaves_the_folder_and_sends_nothing(checkpoint, tmp_path, monkeypatch, capsys):
    argv = ["publish.py", str(checkpoint), "org/tiny", "--dry-run", str(tmp_path / "look")]
    monkeypatch.setattr(sys, "argv", argv)
    publish.main()  # HF_HUB_OFFLINE is set: anything that is sent fails
    assert (tmp_path / "look" / "README.md").is_file()
    assert "model.safetensors" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="is not empty"):
        publish.main()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["nowhere", "org/tiny"], "nowhere is not a folder"), ([".", "not a name"], "Repo id must")],
)
def test_mistakes_are_told_in_a_sentence(arguments, words, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["publish.py", *arguments, "--dry-run", "look"])
    with pytest.raises(SystemExit, match=words):
        publish.main()
    assert not (tmp_path / "look").exists()
