"""The report of a run's data, against hand-counted samples."""

import json

import pytest

from speechverse.training.data.examples import draw_examples, format_example
from speechverse.training.data.filters import CheckedSample
from speechverse.training.data.report import DataPart, format_report, format_table, summarise, write_report
from speechverse.training.data.sample import Sample


def checked(index: int, target: str, task: str | None = "er", fault: str | None = None, **fields) -> CheckedSample:
    fields = {"corpus": "acted", "split": "train", "key": f"key {index}"} | fields
    sample = Sample(f"{index}.wav", ("Choose one: {labels}.",), target, task, values={}, **fields)
    return CheckedSample(sample, fault, 36.0 * (index + 1), 10 * (index + 1), 2)


@pytest.fixture
def part():
    """Three samples of emotion and one of slots that are kept, two that are not, and a row that gave none."""
    return DataPart(
        [
            checked(0, "happy"),
            checked(1, "sad", fault="silent: peak 0.0e+00, at least 1.0e-04"),
            checked(2, "happy"),
            checked(3, "angry", corpus=None, split=None),
            checked(
                4, "date = today; date = now", "sf", answer=[{"label": "date", "value": v} for v in ("today", "now")]
            ),
            checked(5, "sad", fault="silent: peak 1.0e-05, at least 1.0e-04"),
        ],
        [
            {
                "corpus": "acted",
                "split": "train",
                "key": "rows.jsonl, line 7",
                "task": None,
                "reason": "not JSON: cut off",
            }
        ],
    )


def test_summary(part, bank):
    summary = summarise(part, bank)
    assert (summary["samples"], summary["kept"], summary["dropped"]) == (7, 4, {"silent": 2, "not JSON": 1})
    assert summary["hours"] == pytest.approx((1 + 3 + 4 + 5) * 36 / 3600)
    emotion, slots = summary["tasks"]["er"], summary["tasks"]["sf"]
    assert emotion["labels"] == {"happy": 2, "angry": 1, "neutral": 0, "sad": 0}
    assert slots["labels"] == {"date": 2, "time": 0, "food_type": 0}
    assert emotion["seconds"] == {"min": 36.0, "5%": 36.0, "median": 108.0, "95%": 144.0, "max": 144.0}
    assert summary["corpora"]["acted/train"]["er"] == {"kept": 2, "hours": 0.04, "dropped": {"silent": 2}}
    assert summary["corpora"]["acted/train"]["no task"] == {"kept": 0, "hours": 0, "dropped": {"not JSON": 1}}
    assert summary["corpora"]["manifest"]["er"]["kept"] == 1


def test_answers_that_are_no_labels_are_not_counted(bank):
    assert summarise(DataPart([checked(0, "some words", "asr")]), bank)["tasks"]["asr"]["labels"] is None
    unknown = DataPart([checked(index, f"wish {index % 2}", None) for index in range(4)])
    assert summarise(unknown, bank)["tasks"]["no task"]["labels"] == {"wish 0": 2, "wish 1": 2}
    many = DataPart([checked(index, f"wish {index}", None) for index in range(101)])
    assert summarise(many, bank)["tasks"]["no task"]["labels"] is None


def test_views_of_one_task_are_counted_apart(bank):
    part = DataPart(
        [
            checked(0, "Hallo", "st", view="st_de"),
            checked(1, "Salut", "st", view="st_fr"),
            checked(2, "Bonjour", "st", view="st_fr"),
            checked(3, "", "st", view="st_fr", fault="empty label"),
            checked(4, "happy", "er", view="feelings"),
            checked(5, "ER: happy | ASR: hi |", "er+asr", view="er+asr", answer={"er": "happy", "asr": "hi"}),
        ]
    )
    summary = summarise(part, bank)
    assert {name: facts["kept"] for name, facts in summary["tasks"].items()} == {
        "st_de": 1,
        "st_fr": 2,
        "feelings": 1,
        "er+asr": 1,
    }
    assert summary["corpora"]["acted/train"]["st_fr"] == {"kept": 2, "hours": 0.05, "dropped": {"empty label": 1}}
    assert summary["tasks"]["feelings"]["labels"] == {"happy": 1, "neutral": 0, "sad": 0, "angry": 0}
    assert summary["tasks"]["er+asr"]["labels"] is None


def test_report_is_written(part, bank, tmp_path, caplog):
    with caplog.at_level("WARNING"):
        report = write_report(tmp_path / "new", {"train": part, "eval": DataPart([])}, bank, note="said")
    assert json.loads((tmp_path / "new" / "data_report.json").read_text()) == report and report["note"] == "said"
    rows = [json.loads(line) for line in (tmp_path / "new" / "dropped.jsonl").read_text().splitlines()]
    assert [(row["part"], row["key"]) for row in rows] == [
        ("train", "rows.jsonl, line 7"),
        ("train", "key 1"),
        ("train", "key 5"),
    ]
    assert rows[1] == {
        "part": "train",
        "corpus": "acted",
        "split": "train",
        "key": "key 1",
        "audio": "1.wav",
        "task": "er",
        "reason": "silent: peak 0.0e+00, at least 1.0e-04",
    }
    assert "3 samples are left out (2 silent, 1 not JSON); they are listed in" in caplog.text
    write_report(tmp_path / "new", {"train": DataPart([])}, bank)
    assert not (tmp_path / "new" / "dropped.jsonl").read_text()  # nothing of an earlier run stays


def test_tables(part, bank):
    text = format_report({"train": summarise(part, bank)}, ["train"])
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "train: 4 of 7 samples, 0.13 h" in lines
    assert "er 3 0.08 108.0 144.0 144.0 30 40 40 2 2 2" in lines
    assert "happy 2 66.7%" in lines and "neutral 0 0.0%" in lines
    assert "acted/train er 2 2 2 silent" in lines
    assert format_table(["a", "bb"], [["long", 1]]) == "a     bb\nlong   1"


def test_examples_are_the_same_every_time():
    samples = [checked(index, "happy", "er" if index % 2 else "sf") for index in range(20)]
    drawn = draw_examples(samples, 3)
    assert drawn == draw_examples(samples, 3)
    assert {task: len(examples) for task, examples in drawn.items()} == {"er": 3, "sf": 3}
    assert [one.sample.task for one in drawn["er"]] == ["er"] * 3
    assert draw_examples(samples[:2], 3)["sf"] == [samples[0]]


def test_example_without_a_processor():
    sample = checked(0, "happy", labels={"happy": "", "sad": ""})
    assert format_example(sample) == (
        "  0.wav (acted/train/key 0), 36.00 s, 10 audio tokens\n    in:  <audio>Choose one: sad or happy.\n    out: happy"
    )
