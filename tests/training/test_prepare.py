"""The whole of a configuration's data is looked at in one pass, and what is wrong is told at once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from encoded_audio import encoded
from tiny_models import noise

from speechverse.training.data import prepare


SCRIPT = Path(prepare.__file__)
CORPUS = """
id: shades
title: Feelings in noise
licence: CC-BY-NC-4.0
permissive: false
citation: nobody
access: Ask whoever wrote this test.
sources:
  - kind: jsonl
    root: $SPEECHVERSE_DATA/shades
    files: "{split}.jsonl"
    splits: {train: train, test: test}
    columns: {audio: audio, key: key, emotion: emotion, text: text}
tasks:
  er: {answer: emotion}
  asr: {answer: text}
"""
CONFIG = """
audio_base: tiny-wavlm
text_base: tiny-t5
train_data:
  - {corpus: $SPEECHVERSE_DATA/shades.yaml, split: train}
  - {manifest: $SPEECHVERSE_DATA/own.jsonl, instruction: "which colour ?", target: $answer}
eval_data:
  - {corpus: $SPEECHVERSE_DATA/shades.yaml, split: test, tasks: [er]}
use_cpu: true
"""


@pytest.fixture
def config(data_folder, foundations, monkeypatch, tmp_path):
    """A configuration with a corpus of seven rows, of which three are broken, and a manifest of two."""
    monkeypatch.setenv("SPEECHVERSE_FOUNDATIONS", str(foundations))
    folder = data_folder / "shades"
    folder.mkdir()
    for index in range(6):
        soundfile.write(folder / f"{index}.flac", noise(0.4 + 0.1 * index, index), 16_000)
    soundfile.write(folder / "2.flac", np.zeros(8000), 16_000)
    emotions = ["happy", "happy", "sad", "glad", "angry", "happy", "happy"]
    lines = [
        {"audio": f"{index}.flac", "key": f"row {index}", "emotion": emotion, "text": "what is said ?"}
        for index, emotion in enumerate(emotions)
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "test.jsonl").write_text(json.dumps(lines[0]))
    (data_folder / "shades.yaml").write_text(CORPUS)
    own = [{"audio": f"shades/{index}.flac", "answer": answer} for index, answer in enumerate(["red", "blue"])]
    (data_folder / "own.jsonl").write_text("".join(json.dumps(line) + "\n" for line in own))
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG)
    return file


def test_command_tells_all(config, tmp_path):
    command = [sys.executable, SCRIPT, config, "--output_dir", tmp_path / "run", "--workers", "2"]
    process = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert process.returncode == 0, process.stderr[-3000:]
    lines = [" ".join(line.split()) for line in process.stdout.splitlines()]
    assert "train: 11 of 16 samples, 0.00 h" in lines
    assert "happy 3 75.0%" in lines and "neutral 0 0.0%" in lines
    assert "in: <audio>whichcolour?</s>" in lines  # the manifest's own instruction; this tokenizer joins words
    assert "out: red</s>" in lines
    assert (tmp_path / "run" / "lengths.png").read_bytes().startswith(b"\x89PNG")
    report = json.loads((tmp_path / "run" / "data_report.json").read_text())
    assert report["problems"] == [] and report["not_counted"] is None
    assert report["train"]["tasks"]["er"]["labels"] == {"happy": 3, "angry": 1, "neutral": 0, "sad": 0}
    assert report["train"]["tasks"]["er"]["audio_tokens"]["max"] == 12  # 0.9 s
    dropped = [json.loads(line) for line in (tmp_path / "run" / "dropped.jsonl").read_text().splitlines()]
    reasons = sorted(row["reason"].split(":")[0] for row in dropped)
    assert len(dropped) == 5 and reasons[1:] == ["not there", "not there", "silent", "silent"]
    assert "glad" in dropped[0]["reason"]


def run(*arguments) -> None:
    prepare.main([str(argument) for argument in arguments])


def test_everything_that_is_missing_is_told_at_once(config, tmp_path, capsys):
    text = CONFIG.replace("own.jsonl", "gone.jsonl").replace(
        "eval_data:\n", "  - {corpus: $SPEECHVERSE_DATA/away.yaml, split: train}\neval_data:\n"
    )
    config.write_text(text)
    data = Path(os.environ["SPEECHVERSE_DATA"])
    (data / "away.yaml").write_text(CORPUS.replace("/shades", "/away").replace("id: shades", "id: away"))
    with pytest.raises(SystemExit) as stop:
        run(config, "--out", tmp_path / "run", "--workers", "1")
    assert stop.value.code == 1
    captured = capsys.readouterr()
    problems = captured.err.split("In the way of training:")[1]
    assert "gone.jsonl is not there" in problems
    assert "Corpus away is not there" in problems and "Ask whoever wrote this test." in problems
    assert "train: 9 of 14 samples" in captured.out  # the rest was looked at all the same
    assert len(json.loads((tmp_path / "run" / "data_report.json").read_text())["problems"]) == 2


def test_nothing_left_is_in_the_way(config, data_folder, tmp_path, capsys):
    for index in range(2):
        (data_folder / f"shades/{index}.flac").write_bytes(b"")
    with pytest.raises(SystemExit):
        run(config, "--out", tmp_path / "run")
    error = capsys.readouterr().err
    assert "own.jsonl: none of 2 samples can be used; the first: empty: the file holds no bytes." in error
    assert "eval_data, $SPEECHVERSE_DATA/shades.yaml/test: none of 1 samples can be used" in error


def test_without_bases_the_rest_is_checked(config, tmp_path, capsys):
    run(config, "--out", tmp_path / "run", "--audio_base", "of-nobody")
    captured = capsys.readouterr()
    assert "Frames and tokens are not counted: The base model 'of-nobody' is not a folder" in captured.out
    assert "train: 11 of 16 samples" in captured.out and "<audio>which colour ?" in captured.out
    report = json.loads((tmp_path / "run" / "data_report.json").read_text())
    assert report["train"]["tasks"]["er"]["audio_tokens"] is None and "of-nobody" in report["not_counted"]


@pytest.mark.parametrize("option, kind", [("--shards", "tar"), ("--parquet", "parquet")])
def test_corpora_in_shards_are_looked_at(option, kind, config, tmp_path, capsys):
    run(config, "--out", tmp_path / "original")
    run(config, "--out", tmp_path / "run", option, tmp_path / "shards", "--workers", "2")
    assert "train on them with `corpus: " in capsys.readouterr().out
    reports = [json.loads((tmp_path / name / "data_report.json").read_text()) for name in ("original", "run")]
    original, sharded = (report["train"] for report in reports)
    assert sharded["tasks"] == original["tasks"]
    assert sharded["dropped"].pop("not there") == 1  # a row that is in no shard gives no samples
    assert original["dropped"].pop("not there") == 2 and sharded["dropped"] == original["dropped"]
    file = tmp_path / "shards" / "shades" / "corpus.yaml"
    config.write_text(CONFIG.replace("$SPEECHVERSE_DATA/shades.yaml", str(file)))
    run(config, "--out", tmp_path / "again")
    again = json.loads((tmp_path / "again" / "data_report.json").read_text())
    assert again["train"]["tasks"] == original["tasks"] and again["eval"]["kept"] == 1
    assert list(file.parent.glob(f"*-000000.{kind}"))


def test_package_that_is_not_there_is_in_the_way(config, data_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "yake", None)
    kwe = CORPUS.replace("asr: {answer: text}", "kwe: {answer: keywords}") + "derive: [{keywords: {column: text}}]\n"
    (data_folder / "shades.yaml").write_text(kwe)
    with pytest.raises(SystemExit):
        run(config, "--out", tmp_path / "run")
    captured = capsys.readouterr()
    assert "shades.yaml/train: keywords are found by YAKE: pip install" in captured.err
    assert "train: 2 of 2 samples" in captured.out  # the rest was looked at all the same


def test_note_and_task_of_ones_own(config, data_folder, tmp_path, capsys):
    (data_folder / "mood.yaml").write_text(
        "id: mood\nname: m\ntag: Mood\nprompts: ['Which mood ? {labels}']\nlabels: {sad: '', glad: ''}"
    )
    facts = CORPUS.replace("tasks:\n", "note: Beware of the dog.\ntasks:\n  mood: {answer: emotion}\n")
    (data_folder / "shades.yaml").write_text(facts)
    config.write_text(CONFIG + "task_files: [$SPEECHVERSE_DATA/mood.yaml]\n")
    run(config, "--out", tmp_path / "run")
    assert "Note on shades: Beware of the dog.\n" in capsys.readouterr().out
    tasks = json.loads((tmp_path / "run" / "data_report.json").read_text())["train"]["tasks"]
    assert tasks["mood"]["labels"] == {"glad": 1, "sad": 0}


def test_licence_filter_is_told(config, tmp_path, capsys):
    run(config, "--out", tmp_path / "run", "--licences", "permissive")
    assert "licences: permissive leaves out shades (CC-BY-NC-4.0)" in capsys.readouterr().out


def test_second_look_hears_nothing_anew(config, tmp_path, monkeypatch):
    from speechverse.training.data import inspection

    run(config, "--out", tmp_path / "run")
    first = (tmp_path / "run" / "data_report.json").read_text()
    heard = []
    monkeypatch.setattr(
        inspection, "inspect_recording", lambda audio: heard.append(audio) or inspection.RecordingFacts("not there")
    )
    run(config, "--out", tmp_path / "run")
    assert {Path(audio).name for audio in heard} == {"6.flac"}  # which is not there
    assert (tmp_path / "run" / "data_report.json").read_text() == first


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["gone.yaml"], "Configuration gone.yaml is not there"),
        (["{config}", "--workers", "0"], "--workers is 0: give 1 or more"),
        (["{config}", "--streaming"], "--streaming needs --shards or --parquet"),
        (["{config}", "--wrokers", "2"], "wrokers"),
    ],
)
def test_mistakes_are_one_sentence(arguments, message, config, capsys):
    with pytest.raises(SystemExit) as stop:
        run(*(argument.format(config=config) for argument in arguments))
    assert message in f"{stop.value} {capsys.readouterr().err}"


def test_broken_recordings_of_every_kind_are_told_apart(config, data_folder, tmp_path):
    (data_folder / "shades/0.flac").write_bytes(encoded("flac")[:1000])
    (data_folder / "shades/1.flac").write_bytes(encoded("wav", rate=16))
    with pytest.raises(SystemExit):
        run(config, "--out", tmp_path / "run")
    dropped = json.loads((tmp_path / "run" / "data_report.json").read_text())["train"]["dropped"]
    assert dropped["wrong rate"] == 3 and dropped["unreadable"] == 3
