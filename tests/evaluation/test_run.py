"""Evaluations: figures that samples recompute, and the same ones however they are run."""

import json
import os
import re
import shutil
import sys
from collections import Counter
from pathlib import Path

import jiwer
import pytest
from huggingface_hub import constants
from training_runs import TORCHRUN, run_process

from speechverse.evaluation import run, systems
from speechverse.evaluation.sample_log import SampleLog, read_parts


SCRIPT = Path(run.__file__)
SUITE = """
title: Moods
rows:
  - {id: words, data: {corpus: $CALLS/calls.yaml, split: test, tasks: [asr]}, metric: wer, paper: {Theirs: 2.1}}
  - {id: mood, data: {corpus: $CALLS/calls.yaml, split: test, tasks: [er]}, metric: [accuracy, uar]}
  - {id: free, data: {corpus: $CALLS/calls.yaml, split: test, tasks: [er]}, decoding: free}
  - {id: scored, data: {corpus: $CALLS/calls.yaml, split: test, tasks: [er]}, decoding: scored, describe: true}
  - id: both
    data: {corpus: $CALLS/calls.yaml, split: test, tasks: [], joint: [[asr, er]]}
    metric: {asr: wer, er: accuracy}
    paper: {er: {Theirs: 92.2}}
  - id: open
    data: {corpus: $CALLS/calls.yaml, split: test, tasks: [asr]}
    instruction: "what is said ?"
    passes: {words: {at_most: 3}}
"""
VARYING = ("command", "date", "seconds", "processes", "batch_size")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """What is remembered of recordings stays with the test."""
    monkeypatch.setattr(run.constants, "HF_HOME", str(tmp_path / "hf"))


@pytest.fixture
def suite(moods):
    file = moods.parent / "moods.yaml"
    file.write_text(SUITE)
    return file


@pytest.fixture
def evaluate(speller_folder, suite, monkeypatch):
    """Runs the command; returns its results and its samples."""

    def evaluate(out, *arguments, model=speller_folder, asked=("--suite", suite)):
        arguments = ["run.py", "--model", model, *asked, "--out", out, "--batch-size", 4, *arguments]
        monkeypatch.setattr(sys, "argv", [str(argument) for argument in arguments])
        run.main()
        return read(out)

    return evaluate


def read(folder: Path) -> tuple[dict, list[dict]]:
    samples = (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    return json.loads((folder / "results.json").read_text()), [json.loads(line) for line in samples]


def without_circumstances(report: dict) -> dict:
    return {key: value for key, value in report.items() if key not in VARYING}


def recompute(result: dict, samples: list[dict]) -> float:
    """A figure from the samples' answers and references alone."""
    joint = "+" in (samples[0]["task"] or "")
    pairs = [
        tuple((sample[key] or {}).get(result["scored"]) if joint else sample[key] for key in ("answer", "reference"))
        for sample in samples
    ]
    if result["metric"] == "wer":
        texts = [[re.sub(r"[^\w']+", " ", (text or "").lower()).strip() for text in pair] for pair in pairs]
        counts = [jiwer.process_words(truth, answer) for answer, truth in texts]
        wrong = sum(c.substitutions + c.deletions + c.insertions for c in counts)
        return wrong / sum(c.hits + c.substitutions + c.deletions for c in counts)
    totals = Counter(truth for _, truth in pairs)
    right = Counter(truth for answer, truth in pairs if answer == truth)
    if result["metric"] == "uar":
        return sum(right[label] / totals[label] for label in totals) / len(totals)
    return right.total() / len(pairs)


def test_every_figure_is_recomputed_from_the_samples(evaluate, tmp_path, capsys):
    report, samples = evaluate(tmp_path / "out")
    scored = [(row["row"], row["scored"], row["metric"]) for row in report["results"]]
    assert scored == [
        ("words", "asr", "wer"),
        ("mood", "er", "accuracy"),
        ("mood", "er", "uar"),
        ("free", "er", "accuracy"),
        ("scored", "er", "accuracy"),
        ("both", "asr", "wer"),
        ("both", "er", "accuracy"),
        ("open", "asr", "pass_rate"),
    ]
    for result in report["results"]:
        own = [sample for sample in samples if sample["row"] == result["row"]]
        assert result["samples"] == len(own) == 6 and [sample["index"] for sample in own] == list(range(6))
        assert result["value"] == pytest.approx(recompute(result, own))
        assert result["low"] <= result["value"] <= result["high"]
        name = f"{result['scored']}/{result['metric']}" if result["row"] == "both" else result["metric"]
        if result["metric"] in ("accuracy", "pass_rate"):
            assert result["value"] == pytest.approx(sum(sample["scores"][name] for sample in own) / 6)
    by_row = {(result["row"], result["scored"]): result for result in report["results"]}
    assert by_row["words", "asr"]["paper"] == {"Theirs": 2.1} and by_row["both", "er"]["paper"] == {"Theirs": 92.2}
    decoding = {row: result["decoding"] for (row, _), result in by_row.items()}
    assert decoding == {
        "words": "free",
        "mood": "constrained",
        "free": "free",
        "scored": "scored",
        "both": "constrained",
        "open": "free",
    }
    assert by_row["mood", "er"]["classes"] == ["happy", "sad"] and by_row["words", "asr"]["classes"] is None
    assert by_row["free", "er"]["unreadable"] == 6  # this model spells, and knows no label
    assert "2.1" in capsys.readouterr().out and report["fingerprint"] == report["system"]["fingerprint"]
    first = samples[0]
    assert (first["key"], first["corpus"], first["reference"], first["instruction"]) == (
        "test/0",
        "calls",
        "stop it",
        "write it",
    )
    assert not list((tmp_path / "out").glob("*part*"))


def test_recordings_are_named_from_the_data_folder_on(evaluate, tmp_path, moods, monkeypatch):
    monkeypatch.setenv("SPEECHVERSE_DATA", str(moods.parent))
    _, samples = evaluate(tmp_path / "out", "--rows", "mood")
    assert [sample["audio"] for sample in samples] == [f"$SPEECHVERSE_DATA/{index}.wav" for index in range(6)]


def test_two_runs_and_other_batches_give_the_same(evaluate, tmp_path):
    report, samples = evaluate(tmp_path / "a")
    again = evaluate(tmp_path / "b")
    assert (without_circumstances(again[0]), again[1]) == (without_circumstances(report), samples)
    for size in (1, 16):
        other = evaluate(tmp_path / str(size), "--batch-size", size)
        assert (without_circumstances(other[0]), other[1]) == (without_circumstances(report), samples)


def test_a_configuration_that_asks_for_sampling_changes_no_answer(evaluate, speller_folder, tmp_path):
    expected = evaluate(tmp_path / "a")
    file = speller_folder / "generation_config.json"
    sampling = {"do_sample": True, "temperature": 50.0, "top_p": 0.9}
    file.write_text(json.dumps(json.loads(file.read_text()) | sampling))
    assert evaluate(tmp_path / "b")[1] == expected[1]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("batches", [0, 1, 5])
def test_a_killed_run_goes_on_where_it_was(batches, evaluate, tmp_path, monkeypatch):
    expected = evaluate(tmp_path / "whole")
    answer, asked = systems.SpeechVerseSystem.answer, []

    def killed(self, samples, row):
        if len(asked) == batches:
            raise Killed
        asked.append(row.row.id)
        return answer(self, samples, row)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(systems.SpeechVerseSystem, "answer", killed)
        evaluate(tmp_path / "out")
    with (tmp_path / "out" / "samples.part-0.jsonl").open("a") as stream:
        stream.write('{"batch": "scored 0", "line": {"row": "sc')  # what the disk may keep of a batch
    monkeypatch.setattr(systems.SpeechVerseSystem, "answer", lambda *a: (asked.append(a[2].row.id), answer(*a))[1])
    report, samples = evaluate(tmp_path / "out")
    assert len(asked) == 12  # of six rows two batches each, none twice
    assert (without_circumstances(report), samples) == (without_circumstances(expected[0]), expected[1])


def test_a_batch_is_there_whole_or_not_at_all(tmp_path):
    log = SampleLog(tmp_path)
    log.append("a 0", [{"n": 1}, {"n": 2}])
    whole = log.file.read_text()
    log.append("a 4", [{"n": 3}, {"n": 4}])
    for length in range(len(whole), len(log.file.read_text()) + 1):
        cut = tmp_path / str(length)
        cut.mkdir()
        (cut / log.file.name).write_text(log.file.read_text()[:length])
        complete = length >= len(log.file.read_text()) - 1  # the last newline may be missing
        assert read_parts(cut) == {"a 0": [{"n": 1}, {"n": 2}]} | ({"a 4": [{"n": 3}, {"n": 4}]} if complete else {})
        SampleLog(cut).append("a 4", [{"n": 3}, {"n": 4}])  # as a resumed run does
        assert read_parts(cut)["a 4"] == [{"n": 3}, {"n": 4}], length
    SampleLog(tmp_path, rank=1).append("b 0", [{"n": 5}])
    assert read_parts(tmp_path).keys() == {"a 0", "a 4", "b 0"}


def test_two_processes_give_the_same(speller_folder, suite, evaluate, tmp_path):
    report, samples = evaluate(tmp_path / "one")
    arguments = ["--model", speller_folder, "--suite", suite, "--out", tmp_path / "two", "--batch-size", 4]
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    run_process([*TORCHRUN, SCRIPT, *arguments], environment)
    other = read(tmp_path / "two")
    assert (without_circumstances(other[0]), other[1]) == (without_circumstances(report), samples)
    assert other[0]["processes"] == 2


def test_a_finished_run_is_not_asked_again(evaluate, tmp_path, monkeypatch, capsys):
    report, samples = evaluate(tmp_path / "out", "--rows", "mood")
    with monkeypatch.context() as patched:
        patched.setattr(systems, "pipeline", None)  # no model is loaded
        assert evaluate(tmp_path / "out", "--rows", "mood")[1] == samples
        assert "--overwrite asks anew" in capsys.readouterr().out
        with pytest.raises(SystemExit, match="answers of an evaluation with another questions: give another --out"):
            evaluate(tmp_path / "out", "--rows", "words")
        with pytest.raises(SystemExit, match="with another batch_size"):
            evaluate(tmp_path / "out", "--rows", "mood", "--batch-size", 2)
    heard = tmp_path / "out" / "asr_12345678.0.jsonl"  # of a cascade that was asked before
    heard.touch()
    report, samples = evaluate(tmp_path / "out", "--rows", "words", "--overwrite")
    assert not heard.exists()
    assert {sample["row"] for sample in samples} == {"words"}


def test_limit_and_default_folder(speller_folder, moods, evaluate, monkeypatch):
    arguments = ["run.py", "--model", speller_folder, "--config", moods, "--limit", 2]
    monkeypatch.setattr(sys, "argv", [str(argument) for argument in arguments])
    run.main()
    report, samples = read(speller_folder / "evaluation" / "config")
    assert [result["row"] for result in report["results"]] == ["calls/asr", "calls/er"]
    assert [sample["key"] for sample in samples] == ["test/0", "test/3"] * 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--suite", "table1"], "There is no suite table1; there are"),
        (["--rows", "moood"], "moods has no row 'moood'; it has words, mood"),
        (["--model", "nowhere"], "nowhere is no folder or Hub id of a model with a checkpoint"),
        (["--limit", "0"], "2"),  # argparse's exit code
    ],
)
def test_mistakes_are_told_before_anything_is_loaded(arguments, message, evaluate, tmp_path, monkeypatch):
    monkeypatch.setattr(systems, "pipeline", None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SystemExit, match=message):
        evaluate(tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


def test_missing_parts_are_told_before_anything_is_loaded(
    speller_folder, suite, moods, evaluate, tmp_path, monkeypatch
):
    monkeypatch.setattr(systems, "pipeline", None)
    bare = shutil.copytree(speller_folder, tmp_path / "bare")
    (bare / "processor_config.json").unlink()
    with pytest.raises(SystemExit, match="bare is no folder or Hub id of a model with a processor: processor_config"):
        evaluate(tmp_path / "out", model=bare)
    calls = moods.parent / "calls.yaml"
    calls.write_text(calls.read_text().replace("er: {answer: mood}", "er: {answer: mood, task: feeling}"))
    with pytest.raises(SystemExit, match="tasks.er names the task 'feeling'; known are asr, er"):
        evaluate(tmp_path / "out")
    (moods.parent / "rows.jsonl").unlink()
    with pytest.raises(SystemExit, match="Ask us"):
        evaluate(tmp_path / "out")
    monkeypatch.delenv("CALLS")
    with pytest.raises(SystemExit, match="There is no corpus"):
        evaluate(tmp_path / "out")


@pytest.mark.parametrize(
    "settings, message",
    [
        ("tasks: [asr]}, metric: slu_f1", "slu_f1: reference 0 is 'stop it', which is no slots answer"),
        ("tasks: [asr]}, decoding: scored", "."),
        ("tasks: [er]}, hints: [sad]", "Hints are for free text"),
        ("tasks: [asr]}, instruction: '<audio> or <audio>?'", "holds <audio> more than once"),
    ],
)
def test_rows_that_could_not_be_asked_or_scored_are_told_before_anything_is_loaded(
    settings, message, suite, evaluate, tmp_path, monkeypatch
):
    monkeypatch.setattr(systems, "pipeline", None)
    suite.write_text(f"title: T\nrows:\n  - {{id: one, data: {{corpus: $CALLS/calls.yaml, split: test, {settings}}}\n")
    with pytest.raises(SystemExit, match=f"row one: .*{message}"):
        evaluate(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tasks_of_a_configuration_can_be_asked(moods, evaluate, tmp_path):
    calls = moods.parent / "calls.yaml"
    calls.write_text(calls.read_text().replace("er: {answer: mood}", "er: {answer: mood, task: feeling}"))
    (tmp_path / "feeling.yaml").write_text(
        "id: feeling\nname: feeling-of-callers\ntag: Feeling\nlabels: {happy: glad, sad: down}\nprompts: ['{labels} ?']\n"
    )
    moods.write_text(f"{moods.read_text()}task_files: [{tmp_path / 'feeling.yaml'}]\n")
    report, _ = evaluate(tmp_path / "out", asked=("--config", moods))
    assert [result["scored"] for result in report["results"]] == ["asr", "feeling"]


def test_joint_answers_in_words_of_their_own_are_read(suite, evaluate, tmp_path):
    data = "{corpus: $CALLS/calls.yaml, split: test, tasks: [], joint: [[asr, er]]}"
    suite.write_text(f"title: T\nrows:\n  - {{id: one, data: {data}, instruction: 'what is said ?'}}\n")
    report, samples = evaluate(tmp_path / "out")
    assert [result["decoding"] for result in report["results"]] == ["free", "free"]
    assert samples[0]["answer"] is None and samples[0]["reference"] == {"asr": "stop it", "er": "happy"}


def test_other_recordings_of_a_manifest_are_other_questions(moods, evaluate, tmp_path):
    manifest = tmp_path / "m.jsonl"
    source = f"[{{manifest: {manifest}}}]"
    moods.write_text(f"audio_base: a\ntext_base: b\ntrain_data: {source}\ntest_data: {source}\n")
    line = {"audio": "0.wav", "task": "asr", "target": "stop it"}
    manifest.write_text(json.dumps(line) + "\n")
    evaluate(tmp_path / "out", asked=("--config", moods))
    manifest.write_text(json.dumps(line | {"audio": "1.wav"}) + "\n")
    with pytest.raises(SystemExit, match="another questions"):
        evaluate(tmp_path / "out", asked=("--config", moods))


def test_fingerprint_of_a_model_on_the_hub_is_that_of_its_folder(
    hub, hub_in_process, speller_folder, monkeypatch, tmp_path
):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    files = {file.name: file.read_bytes() for file in speller_folder.iterdir() if file.is_file()}
    hub.create_repository("org/speller", files)
    known = systems.fingerprint(speller_folder)
    assert systems.fingerprint(systems.checkpoint_folder("org/speller")) == known


def test_results_of_a_model_on_the_hub_need_a_folder(suite, speller_folder, monkeypatch):
    monkeypatch.setattr(systems, "checkpoint_folder", lambda model: speller_folder)
    monkeypatch.setattr(systems.AutoProcessor, "from_pretrained", lambda model: None)
    monkeypatch.setattr(sys, "argv", ["run.py", "--model", "org/model", "--suite", str(suite)])
    with pytest.raises(SystemExit, match="org/model is no folder: say by --out where the results go"):
        run.main()
