"""The entries of a run's `train_data` and `eval_data`."""

import dataclasses
import json

import pytest
from corpus_copies import COPIES

from speechverse import TaskBank
from speechverse.training.arguments import TASKS_FOLDER, parse_run_config
from speechverse.training.data.run_sources import CorpusSource, load_source, parse_source


@pytest.fixture
def parse(tmp_path):
    def parse(*entries, more=""):
        file = tmp_path / "run.yaml"
        lines = "".join(f"  - {entry}\n" for entry in entries)
        file.write_text(f"audio_base: a\ntext_base: b\ntrain_data:\n{lines}{more}", encoding="utf-8")
        return parse_run_config([str(file), "--output_dir", str(tmp_path / "run")])

    return parse


def test_corpora_stand_beside_manifests(parse):
    config = parse("{corpus: ravdess, split: train, tasks: [er], limit: 7}", "{manifest: m.jsonl}")
    assert config.train_data[0] == CorpusSource("ravdess", "train", ["er"], 7)
    assert config.train_data[1].manifest == "m.jsonl" and config.left_out == []


def test_entry_is_read(parse, data_folder, bank):
    COPIES["ravdess"].write(data_folder)
    config = parse("{corpus: ravdess, split: train, tasks: [er], prompts: held_out}")
    samples, rejected = load_source(config.train_data[0], bank)
    assert [sample.target for sample in samples] == ["neutral", "happy"] and rejected == []
    assert samples[0].instruction() == "Never trained on: neutral, happy, sad or angry"


def test_tasks_that_are_asked_together(parse, data_folder, bank):
    COPIES["fsdd"].write(data_folder)
    config = parse("{corpus: fsdd, split: train, tasks: [asr], joint: [[asr, sns]], limit: 1}")
    samples, _ = load_source(config.train_data[0], bank)
    assert sorted(sample.target for sample in samples) == ["ASR: seven | SNS: speech |", "seven"]


def test_rows_that_another_corpus_tests_on_are_left_out(parse, data_folder, bank):
    COPIES["slurp"].write(data_folder)
    row = {"scenario": "alarm", "action": "set", "sentence": " Sushi  at NOON", "tokens": [], "entities": []}
    for number, sentence in (("30", " Sushi  at NOON"), ("31", "order sushi")):
        row |= {"sentence": sentence, "recordings": [{"file": f"audio-{number}.flac"}]}
        with (data_folder / "slurp/dataset/slurp/train.jsonl").open("a") as stream:
            stream.write(json.dumps(row) + "\n")
    entry = "{corpus: slurp, split: train_real, tasks: [ic], exclude: {corpus: slurp, split: [test, validation], %s}}"
    source = parse(entry % "column: text").train_data[0]
    everything, _ = load_source(dataclasses.replace(source, exclude=None), bank)
    samples, rejected = load_source(source, bank)
    assert [row["reason"] for row in rejected if row["audio"] == "audio-30.flac"] == [
        "excluded: slurp/test has its text too"
    ]
    assert [s.key for s in everything if s not in samples] == ["audio-30.flac"]
    assert "audio-31.flac" in [sample.key for sample in samples]
    for file in (data_folder / "slurp/audio/slurp_real").glob("audio-40*"):
        file.unlink()
    with pytest.raises(
        ValueError, match="Corpus slurp has no text in validation: there is nothing to exclude; the first"
    ):
        load_source(source, bank)
    for more, message in (
        ("column: smell", "key exclude: corpus slurp has no column 'smell'"),
        ("column: text, colour: red", "key exclude: unknown key colour"),
    ):
        with pytest.raises(ValueError, match=message):
            parse(entry % more)
    with pytest.raises(ValueError, match="corpus slurp has no split 'devel'"):
        parse("{corpus: slurp, split: train, exclude: {corpus: slurp, split: devel, column: text}}")


def test_rejected_rows_are_reported(parse, data_folder, bank):
    COPIES["slurp"].write(data_folder)
    (data_folder / "slurp/audio/slurp_real/audio-50.flac").unlink()
    _, rejected = load_source(parse("{corpus: slurp, split: test, tasks: [asr]}").train_data[0], bank)
    assert [row["audio"] for row in rejected] == ["audio-50.flac"] and "no recording" in rejected[0]["reason"]


@pytest.mark.parametrize("more", ["licences: permissive\n", ""])
def test_permissive_licences_leave_out_the_others_by_name(more, parse):
    entries = ["{corpus: ravdess, split: train}", "{corpus: fsdd, split: train}", "{manifest: m.jsonl}"]
    config = parse(*entries, more=f"eval_data:\n  - {{corpus: slurp, split: test}}\n  - {entries[0]}\n{more}")
    if not more:
        assert len(config.train_data) == 3 and len(config.eval_data) == 2 and config.left_out == []
        return
    assert [getattr(source, "corpus", None) for source in config.train_data] == ["fsdd", None]
    assert config.eval_data == []
    assert config.left_out == ["ravdess (CC-BY-NC-SA-4.0)", "slurp (CC-BY-NC-4.0)"]


def test_only_what_serves_some_tasks_is_kept(parse):
    """A view is one of its task, also under another name; manifests are looked into when they are read."""
    entries = [
        "{corpus: ravdess, split: train}",
        "{corpus: fsdd, split: train, joint: [[asr, sns]]}",
        "{manifest: m.jsonl}",
    ]
    config = parse(
        *entries, "{corpus: snips, split: train, tasks: [asr]}", more="only_tasks: [emotion-recognition, sns]\n"
    )
    assert config.only_tasks == ["er", "sns"]
    ravdess, fsdd, manifest = config.train_data
    assert ravdess.tasks == ["er", "sns"] and fsdd.tasks == ["sns"] and fsdd.joint is None
    config = parse(*entries, "{corpus: ravdess, split: train, tasks: [er_8]}", more="only_tasks: [er, asr]\n")
    assert [getattr(source, "tasks", None) for source in config.train_data] == [["er"], ["asr"], None, ["er_8"]]


@pytest.mark.parametrize(
    "entry, more, message",
    [
        ("{corpus: ravdess}", "", r"train_data\[0\]: key split is missing"),
        ("{corpus: ravdess, split: dev}", "", "has no split 'dev'; it has train, validation, test"),
        ("{corpus: ravdess, split: train, tasks: [asr]}", "", "serves no task 'asr'; it serves er, er_8, sns"),
        ("{corpus: ravdess, split: train, tasks: er}", "", "key tasks is 'er'; it should be a list"),
        ("{corpus: ravdess, split: train, limit: 0}", "", "key limit is 0; it is at least 1"),
        ("{corpus: ravdess, split: train, prompts: all}", "", "key prompts is 'all'; it is one of trained, held_out"),
        (
            "{corpus: ravdess, split: train, joint: [er]}",
            "",
            "key joint is .*; it should be a list of which each is a list",
        ),
        (
            "{corpus: ravdess, split: train, joint: [[er]]}",
            "",
            "key joint holds .'er'.; each list in it names two tasks",
        ),
        ("{corpus: ravdess, split: train, joint: [[er, er]]}", "", "names two tasks or more, each once"),
        ("{corpus: ravdess, split: train, joint: [[er, asr]]}", "", "serves no task 'asr'; it serves er, er_8, sns"),
        ("{corpus: ravdess, split: train, rows: {}}", "", "unknown key rows"),
        ("{corpus: ravdess, split: train, where: {snr: .+}}", "", "has no column 'snr'; it has .*emotion"),
        ("{corpus: ravdess, split: train, where: {emotion: '('}}", "", "key where.emotion is no regular expression"),
        (
            "{corpus: ravdess, split: train, streaming: true}",
            "",
            "make shards of the corpus with training/data/prepare.py",
        ),
        ("{manifest: m.jsonl}", "licences: free", "key licences is 'free'; it is one of all, permissive"),
        ("{manifest: m.jsonl}", "only_tasks: er", "key only_tasks is 'er'; it is a list of tasks"),
        ("{manifest: m.jsonl}", "only_tasks: [[er]]", "key only_tasks is .*; it is a list of tasks"),
        ("{manifest: m.jsonl}", "only_tasks: [err]", "key only_tasks names 'err'; known are ac, asc, asr"),
        (
            "{corpus: ravdess, split: train}",
            "licences: permissive",
            "leaves nothing of train_data; it took out ravdess",
        ),
    ],
)
def test_wrong_entries_are_refused(entry, more, message, parse):
    with pytest.raises(ValueError, match=message):
        parse(entry, more=more)


def test_corpus_that_is_not_shipped(parse):
    with pytest.raises(FileNotFoundError, match="There is no corpus 'timit'"):
        parse("{corpus: timit, split: train}")


NOISY = """
id: streets
title: Street noise
licence: CC0-1.0
permissive: true
citation: nowhere
access: Ask us.
sources:
  - {kind: jsonl, root: $STREETS, files: rows.jsonl, splits: {test: {}}, columns: {audio: audio, text: text, mood: mood, snr: snr}}
tasks:
  asr: {answer: text}
  er: {answer: mood}
"""


def test_rows_are_chosen_by_any_column_and_samples_know_their_words_and_noise(tmp_path, monkeypatch):
    monkeypatch.setenv("STREETS", str(tmp_path))
    (tmp_path / "streets.yaml").write_text(NOISY)
    rows = [
        {"audio": "0.wav", "text": "stop it", "mood": "sad", "snr": None},
        {"audio": "1.wav", "text": "go on", "mood": "happy", "snr": 12.5},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for row in rows:
        (tmp_path / row["audio"]).touch()
    bank = TaskBank.from_yaml(TASKS_FOLDER)

    def load(where):
        entry = {"corpus": "$STREETS/streets.yaml", "split": "test", "tasks": ["er"], "where": where}
        return load_source(parse_source(entry, "here"), bank)[0]

    (noisy,) = load({"snr": ".+"})
    assert (noisy.answer, noisy.transcript, noisy.snr) == ("happy", "go on", 12.5)
    (clean,) = load({"snr": ""})
    assert (clean.answer, clean.transcript, clean.snr) == ("sad", "stop it", None)
    assert len(load({"mood": "happy|sad"})) == 2
