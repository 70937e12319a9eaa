"""The table of ways to decode, on a model that knows nothing."""

import json
import sys

import pytest
from transformers import pipeline

from speechverse.evaluation import compare_decoding


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["compare_decoding.py", *map(str, arguments)])
    compare_decoding.main()


def test_every_way_is_measured(speller_folder, moods, monkeypatch, capsys, tmp_path):
    run(monkeypatch, "--model", speller_folder, "--config", moods, "--out", tmp_path, "--batch-size", 4)
    report = json.loads((tmp_path / "decoding.json").read_text())
    (result,) = report["results"]
    assert (result["view"], result["clips"], result["classes"]) == ("calls/er", 6, 2)
    rows = {(row["described"], row["decoding"]): row for row in result["decoding"]}
    assert len(rows) == 6
    ask = pipeline("speech-instruction", model=str(speller_folder))
    for (described, decoding), row in rows.items():
        asked = {"task": "er", "prompt": "{labels}?", "describe": described, **compare_decoding.DECODING[decoding]}
        answers = [ask(str(moods.parent / f"{i}.wav"), **asked)["answer"] for i in range(6)]
        truths = ["sad" if i % 3 else "happy" for i in range(6)]
        assert row["accuracy"] == sum(map(str.__eq__, truths, map(str, answers))) / 6
        assert row["no_label"] == answers.count(None) == (6 if decoding == "free" else 0)
        assert row["seconds_a_clip"] > 0
    assert result["joint"]["task"] == "er" and 0 <= result["joint"]["accuracy_joint"] <= 1
    assert result["joint"]["wer_alone"] > 0
    assert "calls/er: 6 clips, 2 classes" in capsys.readouterr().out


def test_clips_are_taken_from_all_over_a_view():
    assert compare_decoding.spread(list(range(10)), 4) == [0, 2, 5, 7]
    assert compare_decoding.spread([1, 2], 4) == compare_decoding.spread([1, 2], None) == [1, 2]


def test_mistakes_are_one_sentence(speller_folder, moods, monkeypatch):
    with pytest.raises(SystemExit, match="has no view that is answered by labels"):
        run(monkeypatch, "--model", speller_folder, "--config", moods, "--views", "asr")
    with pytest.raises(SystemExit, match="say by --out"):
        run(monkeypatch, "--model", "org/nothing", "--config", moods)
