"""The report on long recordings, by a model that hears nothing right."""

import json
import sys

import pytest
import soundfile
from tiny_models import noise

from speechverse.evaluation import long_audio
from speechverse.evaluation.corpus_metric import load_metric


@pytest.fixture
def manifest(tmp_path):
    rows = [{"audio": f"{index}.wav", "text": "stop it"} for index in range(5)]
    for index, row in enumerate(rows):
        soundfile.write(tmp_path / row["audio"], noise(1.5, index), 16_000)
    (tmp_path / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "clips.jsonl"


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["long_audio.py", *map(str, arguments)])
    long_audio.main()


def test_a_recording_is_made_and_both_ways_are_reported(speller_folder, manifest, tmp_path, monkeypatch, capsys):
    pytest.importorskip("silero_vad")
    options = ["--minutes", "0.1", "--chunk-seconds", "4", "--stride-seconds", "0.5", "--pauses", "0.5", "0.5"]
    run(monkeypatch, "--model", speller_folder, "--manifest", manifest, "--out", tmp_path / "out", *options)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["clips"] == 3 and report["minutes"] == pytest.approx(0.1)
    assert soundfile.info(tmp_path / "out" / "recording.flac").duration == pytest.approx(6.0)
    silences, windows = report["ways"]["cut at silences"], report["ways"]["overlapping windows"]
    assert windows["chunks"] == 2 and windows["skipped"] == []
    heard = sum(end - start for start, end in silences["skipped"])
    assert heard <= 6.0 and len(silences["memory"]) == 3  # noise is no speech, or little of it
    shown = capsys.readouterr().out
    assert "3 clips, 0.1 minutes" in shown and shown.count("peak memory") == 2


def test_words_are_compared_as_the_metric_does():
    wer = load_metric("wer")
    assert long_audio.errors(wer, "Do not STOP, well-known!  ", "don't stop well known") == [0, 0, 0, 5]
    assert long_audio.errors(wer, "a b c d", "a x c") == [1, 0, 1, 3]
    assert long_audio.error_rate(wer, "a b c d", "a x c") == pytest.approx(2 / 3)


def test_mistakes_are_one_sentence(speller_folder, manifest, monkeypatch):
    manifest.write_text('{"text": "no audio"}\n')
    with pytest.raises(SystemExit, match="clips.jsonl, line 1: give a JSON object with the field audio"):
        run(monkeypatch, "--model", speller_folder, "--manifest", manifest)
