"""Temperatures and calibration errors against cases whose answer is known."""

import json
import sys

import numpy as np
import pytest
from scipy.special import log_softmax
from transformers import pipeline

from speechverse import TaskBank
from speechverse.evaluation import calibrate


def test_the_temperature_that_made_the_scores_is_found():
    random = np.random.default_rng(0)
    for temperature in (0.5, 1.0, 3.0):
        rows, truths = [], []
        for size in random.integers(2, 8, 4000):
            logits = random.normal(scale=2.0, size=size)
            truths.append(random.choice(size, p=np.exp(log_softmax(logits))))
            rows.append(log_softmax(logits * temperature) + 5.0)  # a constant makes no difference
        fitted = calibrate.fit_temperature(rows, truths)
        assert fitted == pytest.approx(temperature, rel=0.08)
        losses = {
            t: -np.mean([log_softmax(row / t)[truth] for row, truth in zip(rows, truths, strict=True)])
            for t in (fitted * 0.97, fitted, fitted * 1.03)
        }
        assert min(losses, key=losses.get) == fitted
        assert calibrate.expected_calibration_error(rows, truths, fitted) < 0.03
        if temperature != 1.0:
            assert calibrate.expected_calibration_error(rows, truths, 1.0) > 0.06


def test_calibration_error_by_hand():
    sure, unsure = np.log([0.9, 0.1]), np.log([0.55, 0.45])
    rows = [sure, sure, unsure, unsure]
    # Of the two scored 0.9 one is right, of the two scored 0.55 both.
    expected = 0.5 * abs(0.5 - 0.9) + 0.5 * abs(1.0 - 0.55)
    assert calibrate.expected_calibration_error(rows, [0, 1, 0, 0], 1.0) == pytest.approx(expected)
    assert calibrate.expected_calibration_error([np.log([1.0, 1e-9])], [0], 1.0) == pytest.approx(0, abs=1e-6)


def test_temperatures_are_written_where_the_pipeline_finds_them(speller_folder, moods, monkeypatch, capsys):
    clip = str(moods.parent / "1.wav")
    before = pipeline("speech-instruction", model=str(speller_folder))(clip, task="er", return_scores=True)
    monkeypatch.setattr(sys, "argv", ["calibrate.py", "--model", str(speller_folder), "--config", str(moods)])
    calibrate.main()
    temperature = TaskBank.from_json(speller_folder / "tasks.json")["er"].temperature
    assert temperature != 1.0 and f"temperature {temperature:6.2f}" in capsys.readouterr().out
    after = pipeline("speech-instruction", model=str(speller_folder))(clip, task="er", return_scores=True)
    logits = np.log(list(before["scores"].values())) / temperature
    assert list(after["scores"].values()) == pytest.approx(np.exp(log_softmax(logits)), abs=1e-6)
    assert [task["id"] for task in json.loads((speller_folder / "tasks.json").read_text())] == ["asr", "er"]
    calibrate.main()  # what is there already does not count twice
    assert TaskBank.from_json(speller_folder / "tasks.json")["er"].temperature == pytest.approx(temperature, rel=1e-4)


def test_mistakes_are_one_sentence(speller_folder, moods, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["calibrate.py", "--model", str(tmp_path), "--config", str(moods)])
    with pytest.raises(SystemExit, match="There is no .*tasks.json"):
        calibrate.main()
    moods.write_text(moods.read_text().replace("split: test}", "split: test, tasks: [asr]}"))
    monkeypatch.setattr(sys, "argv", ["calibrate.py", "--model", str(speller_folder), "--config", str(moods)])
    with pytest.raises(SystemExit, match="has no eval_data of a task of this model that is answered by labels"):
        calibrate.main()
