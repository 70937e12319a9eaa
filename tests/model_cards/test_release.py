"""What is published is complete, fits together, and holds nothing that stays at home."""

import json
import shutil
import sys

import pytest
import torch
import yaml
from hub_standin.cards import check_card
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from tiny_models import noise, tiny_model, tiny_processor

from speechverse import SpeechVerseForConditionalGeneration, SpeechVerseProcessor
from speechverse.model_cards import publish
from speechverse.model_cards.records import shorten_paths
from speechverse.model_cards.release import write_release
from speechverse.modeling_speechverse.base_checkpoints import fingerprint


CODE = {
    "adapter_checkpoints.py",
    "audio_encoders.py",
    "audio_speechverse.py",
    "base_checkpoints.py",
    "configuration_speechverse.py",
    "constraints_speechverse.py",
    "frozen_parts.py",
    "generation_speechverse.py",
    "hint_biasing.py",
    "label_scoring.py",
    "long_audio_speechverse.py",
    "long_form_speechverse.py",
    "modeling_speechverse.py",
    "pipeline_speechverse.py",
    "placement.py",
    "processing_speechverse.py",
    "questions_speechverse.py",
    "tasks_speechverse.py",
    "token_constraint_speechverse.py",
}


def release(checkpoint, tmp_path, **arguments):
    folder = tmp_path / "release"
    folder.mkdir()
    write_release(checkpoint, folder, repo_id="org/tiny", **arguments)
    return folder


def test_it_is_complete_and_nothing_else(checkpoint, tmp_path):
    folder = release(checkpoint, tmp_path)
    data = {"config.json", "generation_config.json", "model.safetensors", "processor_config.json", "tasks.json"}
    rest = {"tokenizer.json", "tokenizer_config.json", "README.md", "evaluation/colours/results.json", "run.json"}
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    assert files.keys() == CODE | data | rest
    for name, file in files.items():
        content = file.read_bytes()
        assert b"secret" not in content and str(tmp_path).encode() not in content, name


def test_results_are_published_but_for_what_may_name_recordings_or_the_machine(checkpoint, tmp_path):
    private = json.loads((checkpoint / "evaluation" / "colours" / "results.json").read_text())
    public = json.loads((release(checkpoint, tmp_path) / "evaluation" / "colours" / "results.json").read_text())
    for ours, theirs in zip(private["results"], public["results"], strict=True):
        changed = {"corpus", "skipped", "classes", "note"}
        assert theirs.keys() == ours.keys() - {"classes", "note"}
        assert all(ours[name] == theirs[name] for name in ours.keys() - changed)
    assert public["results"][0]["skipped"] == {"unreadable": 3}
    assert [row["corpus"] for row in public["results"]] == ["own", "calls v2.yaml", "own", None]
    assert public["system"].keys() == {"kind", "name", "model", "fingerprint"} and public["system"]["model"] == "run"
    assert public["not_asked"] == [{"row": "sc", "reason": "the model has no task sc"}]
    assert public["title"] == "Colours (of calls)" and public["seconds"] == 12.3 and public["seed"] == 3


def test_record_is_published_but_for_what_may_quote_the_data_or_the_machine(checkpoint, tmp_path):
    run = json.loads((release(checkpoint, tmp_path) / "run.json").read_text())
    _, own = run["config"]["train_data"]
    assert own["corpus"] == "own.yaml" and own["exclude"] == {
        "corpus": "other.yaml",
        "split": "test",
        "column": "text",
    }
    assert run["config"]["curriculum"] == [{"name": "all", "steps": 7, "until": {"patience": 2, "task": None}}]
    assert run["config"]["mixture"] == {"temperature": 2.0, "adaptive": None}
    assert run["versions"] == {"python": "3.12.1", "torch": "2"}
    assert run["hardware"]["gpus"] == [{"name": "Some GPU", "memory_gib": 79.2}] * 2
    assert run["hardware"]["world_size"] == 2 and "host" not in run["hardware"]
    assert [(stage["name"], stage["end"]) for stage in run["stages"]] == [("projector | ASR", "length"), ("all", None)]
    assert run["data"]["train"]["corpora"]["own/train"] == {"er": {"kept": 20, "hours": 0.15}}
    assert run["data"]["licences"]["own"]["title"] == "Calls (from calls)"
    assert run["trained_on"] == {"er": {"samples": 56, "seconds": 99.5, "tokens": 112}}
    assert run["log"] == [{"loss": 0.5, "grad_norm": None, "step": 7}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/jane doe/a b.wav", "a b.wav"),
        (r"C:\Users\jane\a.wav", "a.wav"),
        ("see (/home/jane/LICENCE), or ~/more", "see (LICENCE), or more"),
        ("MIT / CC0, https://example.org/terms", "MIT / CC0, https://example.org/terms"),
    ],
)
def test_paths_in_texts_are_shortened(text, expected):
    assert shorten_paths(text) == expected


def test_record_of_an_earlier_version_is_published(checkpoint, tmp_path):
    run = json.loads((checkpoint / "run.json").read_text())
    for name in ("versions", "hardware", "data_seed", "train_runtime", "stages", "data", "trained_on"):
        del run[name]
    (checkpoint / "run.json").write_text(json.dumps(run))
    assert "7 steps, seed 0, 1,234 parameters" in (release(checkpoint, tmp_path) / "README.md").read_text()


@pytest.mark.parametrize("adapter, named", [("/home/secret/runs/other", "`other`"), ("org/other", "`org/other`")])
def test_adapter_that_training_went_on_from_is_named(adapter, named, checkpoint, tmp_path):
    run = json.loads((checkpoint / "run.json").read_text())
    run["config"]["adapter"] = adapter
    (checkpoint / "run.json").write_text(json.dumps(run))
    folder = release(checkpoint, tmp_path)
    assert f"It went on from the adapter {named}, whose own training" in (folder / "README.md").read_text()
    assert "secret" not in (folder / "run.json").read_text()


def test_pictures_are_published_and_shown(checkpoint, tmp_path):
    for name in ("loss.png", "training.png", "lengths.png"):
        (checkpoint / name).write_bytes(name.encode())
    folder = release(checkpoint, tmp_path)
    assert (folder / "training.png").read_bytes() == b"training.png" and (folder / "loss.png").is_file()
    assert not (folder / "lengths.png").exists()
    card = (folder / "README.md").read_text()
    assert "](loss.png)" in card and "](training.png)" in card


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
    card = (tmp_path / "release" / "README.md").read_text()
    assert "before they were rounded to BF16" in card
    (tmp_path / "again").mkdir()
    write_release(tmp_path / "release", tmp_path / "again", repo_id="org/tiny")  # as good a checkpoint as any


def test_card_says_what_it_is(checkpoint, bases, tmp_path):
    card = ModelCard.load(release(checkpoint, tmp_path, license="cc-by-4.0") / "README.md")
    assert "What was learned is under cc-by-4.0." in card.text and "not stated" not in card.text
    assert card.data.library_name == "transformers" and card.data.license == "cc-by-4.0"
    assert card.data.pipeline_tag == "audio-text-to-text" and "speechverse" in card.data.tags
    assert card.data.base_model is None  # these bases are folders: the Hub does not know them
    assert "tiny-wavlm and tiny-t5 are no repository of the Hub" in card.text
    for folder in bases:
        assert fingerprint(folder)[:16] in card.text
    assert fingerprint(tmp_path / "release")[:16] in card.text
    assert 'pipeline("speech-instruction", model="org/tiny", trust_remote_code=True)' in card.text
    recall = "UAR (higher is better) | 75.0 % (62.3 to 85.0) | 1,200 of 4 speakers; 5 answers unreadable, and wrong; 3 left out: unreadable"
    how = "constrained, held-out prompt, classes described | Multitask-WLM 68.35; Task-FT 70 (on MSP-Podcast)"
    assert rf"| Colours \| seen | own/test | {recall} | {how} |" in card.text
    assert "| Into German | calls v2.yaml/test | BLEU (higher is better) | 21.0 | 10 | free | - |" in card.text
    assert "| Both: asr | own/test | WER (lower is better) | 10.0 % (5.0 to 20.0) |" in card.text
    assert "| Mine | manifest | accuracy (higher is better) | - |" in card.text
    assert "BLEU: `tok:13a|version:2`; WER: `corpus-level`" in card.text
    assert "Not asked: sc (the model has no task sc)." in card.text
    assert "### Colours (of calls)" in card.text and "After Somebody, arXiv 1234.5678, Table 9. Measured" in card.text
    assert "on 2 CPU cores, seed 3, by" in card.text
    assert "`python evaluation/run.py --model=run --out 'a b'`" in card.text and "2026-01-02" in card.text
    assert "- manifest: calls.jsonl; where: {'split': 'train'}" in card.text
    assert "| `er` | emotion-recognition | red, blue | which colour ? |" in card.text
    assert "7 steps, seed 0, 1,234 parameters" in card.text
    assert "2 processes on 2 x Some GPU (79.2 GiB)" in card.text and "python 3.12.1, torch 2" in card.text
    assert "| own/train | er | 20 | 0.15 | CC-BY-NC-4.0 |" in card.text
    assert "| manifest | no task | 10 | 0.10 | one's own; not recorded |" in card.text
    assert "30 samples in all, 0.25 h" in card.text and "3 were left out" in card.text
    assert r"| projector \| ASR | projector | asr | 0 | 7 | length |" in card.text
    assert "| all | lora | all | never reached | 0 | - |" in card.text
    assert "forbids commercial use, which may bind it too: Calls (from calls) (CC-BY-NC-4.0)." in card.text
    assert "This card is a draft" not in card.text  # it has results


def test_figures_are_metadata_that_the_hub_reads(checkpoint, tmp_path):
    folder = release(checkpoint, tmp_path)
    data = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    assert data["metrics"] == ["accuracy", "bleu", "recall", "wer"]
    [model] = data["model-index"]
    assert model["name"] == "tiny"
    recall, bleu, wer = model["results"]  # what has no value is not there
    assert recall["task"] == {"type": "audio-classification", "name": "emotion-recognition"}
    assert recall["dataset"] == {"type": "own", "name": "own", "config": "er", "split": "test"}
    [metric] = recall["metrics"]
    assert (metric["type"], metric["value"]) == ("recall", 75.0) and metric["name"] == "UAR, Colours | seen"
    assert metric["args"] == {
        "suite": "colours",
        "row": "er",
        "prompts": "held_out",
        "decoding": "constrained",
        "samples": 1200,
    }
    assert bleu["task"]["type"] == "translation" and bleu["dataset"]["type"] == "calls-v2.yaml"
    assert bleu["metrics"][0]["value"] == 21.05
    assert wer["task"]["type"] == "automatic-speech-recognition" and wer["metrics"][0]["name"] == "WER, Both: asr"
    assert all("verified" not in metric for result in model["results"] for metric in result["metrics"])
    assert check_card((folder / "README.md").read_text()) == ([], [])
    loaded = ModelCard.load(folder / "README.md").data.eval_results
    assert [(result.metric_type, result.metric_value) for result in loaded] == [
        ("recall", 75.0),
        ("bleu", 21.05),
        ("wer", 10.0),
    ]


def test_limits_say_what_it_was_not_trained_for(checkpoint, tmp_path):
    limits = (release(checkpoint, tmp_path) / "README.md").read_text().partition("## Limits")[2]
    assert "on silence, noise or music it may make words up" in limits and "no_speech_threshold" not in limits
    assert "Of the 0.25 h that it was trained on, 0.15 h were synthetic speech (Calls (from calls))." in limits
    assert "it has not learned these: accent-classification, audio-sentiment, speech-recognition," in limits
    assert "emotion-recognition" not in limits
    assert "`chunk_length_s=`" in limits and "each piece is answered by itself" in limits


def test_emissions_are_those_that_the_publisher_states(checkpoint, tmp_path):
    card = ModelCard.load(release(checkpoint, tmp_path) / "README.md")
    hardware = "2 processes on 2 x Some GPU (79.2 GiB)"
    assert f"0.00 h of training since the run was last started or resumed, {hardware}. " in card.text
    assert "Energy and emissions were not measured." in card.text and "co2_eq_emissions" not in card.content
    (tmp_path / "again").mkdir()
    emissions = {"emissions": 12.5, "source": "codecarbon"}
    write_release(checkpoint, tmp_path / "again", repo_id="org/tiny", emissions=emissions)
    card = ModelCard.load(tmp_path / "again" / "README.md")
    assert "states 12.5 g of CO2 equivalents (codecarbon)" in card.text and "not measured" not in card.text
    expected = emissions | {"training_type": "fine-tuning", "hardware_used": hardware}
    assert card.data.to_dict()["co2_eq_emissions"] == expected
    assert check_card(card.content) == ([], [])


def test_licences_are_inherited(checkpoint, tmp_path):
    run = json.loads((checkpoint / "run.json").read_text())
    run["config"]["adapter"] = "/home/secret/before"
    earlier = {
        "title": "Diaries (of /home/secret/jane)",
        "licence": "CC-BY-NC-SA-4.0",
        "permissive": False,
        "file": "secret",
    }
    run["data"]["inherited"] = {"/home/secret/diaries.yaml": earlier}
    (checkpoint / "run.json").write_text(json.dumps(run))
    folder = release(checkpoint, tmp_path)
    text = " ".join(ModelCard.load(folder / "README.md").text.split())
    words = "Diaries (of jane) (CC-BY-NC-SA-4.0)."
    assert f"adapter `before`, whose own training is not counted here; it had learned from {words}" in text
    assert f"bind it too: Calls (from calls) (CC-BY-NC-4.0); {words}" in text
    assert "secret" not in (folder / "run.json").read_text()


def test_hub_bases_are_linked(checkpoint, tmp_path):
    config = json.loads((checkpoint / "config.json").read_text())
    config["audio_base"]["id"], config["text_base"]["id"] = "org/ears", "org/mind"
    (checkpoint / "config.json").write_text(json.dumps(config))
    card = ModelCard.load(release(checkpoint, tmp_path) / "README.md")
    assert card.data.base_model == ["org/ears", "org/mind"] and card.data.base_model_relation == "adapter"
    assert "speechverse-foundations" not in card.text


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_whole_model_is_published_whole(dtype, tmp_path):
    model = tiny_model()
    model.save_pretrained(tmp_path / "run")
    tiny_processor(model).save_pretrained(tmp_path / "run")
    folder = release(tmp_path / "run", tmp_path, dtype=dtype)
    assert load_file(folder / "model.safetensors").keys() == load_file(tmp_path / "run" / "model.safetensors").keys()
    again = SpeechVerseForConditionalGeneration.from_pretrained(folder)
    for (name, ours), theirs in zip(model.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(ours if dtype is None else ours.bfloat16().to(theirs.dtype), theirs), name
        assert theirs.dtype == torch.float32 if theirs.requires_grad or dtype is None else torch.bfloat16
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


def with_a_record_of_nothing(folder):
    (folder / "run.json").write_text("{}")


def with_an_older_record(folder):
    run = json.loads((folder / "run.json").read_text())
    del run["config"]["layer_mix"]
    (folder / "run.json").write_text(json.dumps(run))


def with_an_older_table(folder):
    file = folder / "evaluation" / "colours" / "results.json"
    results = json.loads(file.read_text())
    del results["results"][0]["decoding"]
    file.write_text(json.dumps(results))


def of_another_kind(folder):
    (folder / "config.json").write_text('{"model_type": "bert"}')


def with_broken_tasks(folder):
    (folder / "tasks.json").write_text("{")


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
        (trained_on, r"evaluation/colours/results.json is about other weights"),
        (with_an_older_table, r"results.json is not what this version writes .KeyError.'decoding'"),
        (with_a_record_of_nothing, r"run.json does not say which weights"),
        (with_an_older_record, r"run.json is not what this version writes .KeyError.'layer_mix'"),
        (of_another_kind, "model_type 'bert'"),
        (with_broken_tasks, "tasks.json is not JSON"),
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
    with pytest.raises(SystemExit, match="is there already"):
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
