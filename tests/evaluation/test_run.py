"""Scores against hand-worked cases."""

import json
import sys
from pathlib import Path

import pytest
import soundfile
from tiny_models import noise, tiny_model, tiny_processor

from speechverse import Task, TaskBank
from speechverse.evaluation import run
from speechverse.training.data.sample import JointSample, Sample


def test_accuracy_and_recall_by_hand():
    truths = ["a", "a", "a", "b"]
    answers = ["a", "a", None, "a"]
    assert run.accuracy(truths, answers) == 0.5
    assert run.unweighted_average_recall(truths, answers) == pytest.approx((2 / 3 + 0) / 2)
    assert run.unweighted_average_recall([["a", "b"], []], [["a"], []]) == 0.5


def test_answers_come_back_in_the_samples_order(tmp_path):
    class Echo:
        """Answers every recording with its own name."""

        def __call__(self, inputs, batch_size):
            return ({"text": Path(item["audio"]).name} for item in inputs)

    samples = []
    for size in (30, 10, 20):  # they are asked about by size
        (tmp_path / f"{size}.wav").write_bytes(bytes(size))
        samples.append(Sample(str(tmp_path / f"{size}.wav"), ("say it",), "red"))
    assert run.ask(Echo(), samples, batch_size=2) == ["30.wav", "10.wav", "20.wav"]


@pytest.mark.parametrize(
    "task, target, text, expected",
    [
        ("er", "Angry", " angry. ", ("angry", "angry")),
        ("emotion-recognition", "angry", "in a rage", ("angry", None)),
        ("er", "bored", "bored ", ("bored", "bored")),  # of classes that the instruction lists
        ("kwe", "rain, umbrella", "rain,umbrella", (["rain", "umbrella"], ["rain", "umbrella"])),
        ("sf", "date = today", "Date=today", 2 * ([{"label": "date", "value": "today"}],)),
        ("sf", "none", "None.", ([], [])),
        ("asr", " stop it", "stop it ", ("stop it", "stop it")),
        ("colour", "red", "Red.", ("red", "Red.")),  # which no bank knows
        (None, "red", "red ", ("red", "red")),
    ],
)
def test_target_and_answer_are_read_by_the_task(task, target, text, expected):
    assert run.read(Sample("a.wav", ("?",), target, task), text, run.all_tasks(TaskBank())) == expected


def test_joint_answer_is_read_by_its_tasks():
    tasks = run.all_tasks(TaskBank())
    joint, labels = tasks.joint(["asr", "ic"]), {"ic": {"Play": "", "Stop": ""}}
    sample = JointSample("a.wav", (), "ASR: hush | IC: Stop |", "asr+ic", labels=labels, joint=joint)
    truth, answer = run.read(sample, "IC: stop | ASR: hush", tasks)
    assert truth == answer == {"asr": "hush", "ic": "Stop"}
    assert run.read(sample, "hush", tasks) == (truth, None)


def test_views_of_one_task_are_scored_apart():
    views = ["st_de", "st_fr", None, "st_de"]
    samples = [Sample(f"{index}.wav", ("?",), "x", "st", view=view) for index, view in enumerate(views)]
    assert run.by_view(samples) == [[samples[0], samples[3]], [samples[1]], [samples[2]]]


def test_own_tasks_go_before_shipped_ones():
    own = [
        Task("er", "mood", "Mood", ["how ?"], {"good": "", "bad": ""}),
        Task("x", "keyword-search", "X", ["say it"]),
    ]
    tasks = run.all_tasks(TaskBank(own))
    assert tasks["er"] == own[0] and tasks["keyword-search"] == own[1]
    assert "asr" in tasks and "kws" not in tasks and "emotion-recognition" not in tasks


@pytest.fixture
def model_folder(tmp_path):
    """A model that has learned one task."""
    model = tiny_model()
    model.generation_config.max_new_tokens = 4
    model.save_pretrained(tmp_path / "model")
    tasks = TaskBank([Task("asr", "speech-recognition", "ASR", ["say it"])])
    tiny_processor(model, tasks=tasks).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_every_sample_is_asked_and_written(model_folder, tmp_path, monkeypatch, capsys):
    lines = []
    for index, seconds in enumerate((0.9, 0.3, 0.6)):
        soundfile.write(tmp_path / f"{index}.wav", noise(seconds, index), 16_000)
        lines.append(json.dumps({"audio": f"{index}.wav", "instruction": "which colour ?", "target": "red"}))
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    source = f"[{{manifest: {tmp_path / 'data.jsonl'}}}]"
    config = tmp_path / "config.yaml"
    config.write_text(f"audio_base: a\ntext_base: b\ntrain_data: {source}\neval_data: {source}\n")

    argv = [
        "run.py",
        "--model",
        str(model_folder),
        "--config",
        str(config),
        "--out",
        str(tmp_path),
        "--batch-size",
        "2",
    ]
    monkeypatch.setattr(sys, "argv", argv)
    run.main()
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [answer["audio"] for answer in answers] == ["0.wav", "1.wav", "2.wav"]
    (result,) = json.loads((tmp_path / "results.json").read_text())["results"]
    assert result["samples"] == 3
    assert result["accuracy"] == sum(answer["answer"] == "red" for answer in answers) / 3
    assert "3 clips" in capsys.readouterr().out


def test_task_that_the_model_has_not_learned_is_asked(model_folder, tmp_path, monkeypatch):
    soundfile.write(tmp_path / "0.wav", noise(0.5), 16_000)
    targets = {"er": "happy", "sf": "date = today; person = Ann"}
    sources = []
    for task, target in targets.items():
        (tmp_path / f"{task}.jsonl").write_text(json.dumps({"audio": "0.wav", "task": task, "target": target}))
        sources.append(f"{{manifest: {tmp_path / task}.jsonl}}")
    config = tmp_path / "config.yaml"
    sources = f"[{', '.join(sources)}]"
    config.write_text(f"audio_base: a\ntext_base: b\ntrain_data: {sources}\neval_data: {sources}\n")
    monkeypatch.setattr(sys, "argv", ["run.py", "--model", str(model_folder), "--config", str(config)])
    monkeypatch.setattr(run, "ask", lambda _, samples, batch_size: [targets[s.task].upper() for s in samples])
    run.main()
    answers = [json.loads(line) for line in (model_folder / "answers.jsonl").read_text().splitlines()]
    assert answers[0]["truth"] == answers[0]["answer"] == "happy"
    assert answers[1]["truth"][1] == {"label": "person", "value": "Ann"}
    assert answers[1]["answer"][1] == {"label": "person", "value": "ANN"}
    results = json.loads((model_folder / "results.json").read_text())["results"]
    assert [row["accuracy"] for row in results] == [1, 0]
    assert [row.get("uar") for row in results] == [1, None]  # lists of slots are no classes


OWN = """
id: calls
title: Our calls
licence: CC0-1.0
permissive: true
citation: nowhere
access: Ask us.
sources:
  - {kind: jsonl, root: $CALLS, files: rows.jsonl, splits: {test: {}}, columns: {audio: audio, text: text, haste: haste}}
derive: [%s]
tasks:
  asr: {answer: text}
  urgency: {answer: haste}
"""
URGENCY = """
id: urgency
name: urgency-detection
tag: Urgency
prompts: ["Is it urgent? {labels}"]
labels: {"yes": now, "no": later}
"""


@pytest.fixture
def calls(tmp_path, model_folder, monkeypatch):
    """A configuration that asks for a task of its own; returns what writes it."""
    monkeypatch.setenv("CALLS", str(tmp_path))
    rows = [{"audio": f"{index}.wav", "text": "stop it", "haste": "no" if index else "yes"} for index in range(2)]
    for row in rows:
        soundfile.write(tmp_path / row["audio"], noise(0.5), 16_000)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "urgency.yaml").write_text(URGENCY)

    def calls(joint="[[urgency, asr]]", derive="", facts=OWN):
        (tmp_path / "calls.yaml").write_text(facts % derive)
        source = f"[{{corpus: $CALLS/calls.yaml, split: test, joint: {joint}}}]"
        config = tmp_path / "config.yaml"
        config.write_text(
            f"audio_base: a\ntext_base: b\ntrain_data: {source}\neval_data: {source}\ntask_files: [$CALLS/urgency.yaml]\n"
        )
        monkeypatch.setattr(sys, "argv", ["run.py", "--model", str(model_folder), "--config", str(config)])
        return config

    return calls


def test_own_task_alone_and_with_another_is_scored(calls, model_folder, monkeypatch):
    calls()
    answers = {"asr": "stop it", "urgency": "Yes.", "urgency+asr": "Urgency: yes | ASR: stop that |"}
    monkeypatch.setattr(run, "ask", lambda _, samples, batch_size: [answers[s.task] for s in samples])
    run.main()
    results = {row["view"]: row for row in json.loads((model_folder / "results.json").read_text())["results"]}
    assert {view: row["accuracy"] for view, row in results.items()} == {"asr": 1, "urgency": 0.5, "urgency+asr": 0}
    assert results["urgency+asr"]["accuracies"] == {"urgency": 0.5, "asr": 0}
    assert "=== Task: Urgency === Is it urgent? yes or no ===" in results["urgency+asr"]["instruction"]


def test_package_that_is_not_there_is_named(calls, monkeypatch):
    facts = OWN.replace("answer: haste", "task: kwe, answer: keywords")
    calls("[]", "{keywords: {column: text}}", facts)
    monkeypatch.setitem(sys.modules, "yake", None)
    with pytest.raises(SystemExit, match="keywords are found by YAKE: pip install"):
        run.main()


def test_mistakes_are_one_sentence(model_folder, tmp_path, monkeypatch):
    (tmp_path / "data.jsonl").write_text('{"audio": "gone.wav", "instruction": "say it", "target": "red"}')
    config = tmp_path / "config.yaml"
    source = f"[{{manifest: {tmp_path / 'data.jsonl'}}}]"
    config.write_text(f"audio_base: a\ntext_base: b\ntrain_data: {source}\neval_data: {source}\n")
    for model, message in ((model_folder, "None of the 1 samples"), ("org/nothing", "say by --out")):
        monkeypatch.setattr(sys, "argv", ["run.py", "--model", str(model), "--config", str(config)])
        with pytest.raises(SystemExit, match=message):
            run.main()
