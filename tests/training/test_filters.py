"""Recordings that cannot be used are left out, counted and listed."""

import json

import numpy as np
import pytest
import soundfile
from tiny_models import noise

from speechverse.training.data.filters import drop_unusable, report_skipped
from speechverse.training.data.manifest import Sample


def sample(path) -> Sample:
    return Sample(str(path), ("say it",), "red")


@pytest.fixture
def recordings(tmp_path):
    """One usable recording, and one of each kind that is not."""
    for name, seconds in (("good", 1.0), ("short", 0.05), ("long", 31.0)):
        soundfile.write(tmp_path / f"{name}.wav", noise(seconds), 16_000)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16_000)
    (tmp_path / "text.wav").write_text("not audio")
    soundfile.write(tmp_path / "nan.wav", np.full(16_000, np.nan), 16_000, subtype="FLOAT")
    return tmp_path


def test_unusable_recordings_are_listed_with_their_reason(recordings, caplog):
    samples = [
        sample(recordings / f"{name}.wav")
        for name in ("good", "short", "long", "empty", "text", "nan", "gone", "good")
    ]
    usable, skipped = drop_unusable(samples, 0.1, 30.0)
    assert usable == [samples[0], samples[-1]]
    with caplog.at_level("WARNING"):
        report_skipped(skipped, recordings / "run")
    listed = [json.loads(line) for line in (recordings / "run" / "skipped.jsonl").read_text().splitlines()]
    reasons = {row["audio"].rsplit("/", 1)[1]: row["reason"] for row in listed}
    assert reasons["empty.wav"] == "empty"
    assert reasons["short.wav"] == "too short: 0.050 s of at least 0.1 s"
    assert reasons["long.wav"] == "too long: 31.0 s of at most 30 s"
    assert reasons["text.wav"].startswith("unreadable: ")
    assert reasons["nan.wav"].startswith("not finite") and reasons["gone.wav"] == "not there"
    assert "6 recordings are left out" in caplog.text and "1 too short" in caplog.text


def test_no_bound_keeps_the_long_one(recordings):
    samples = [sample(recordings / "long.wav")]
    assert drop_unusable(samples, 0.1, None) == (samples, [])


def test_nothing_left_is_an_error(recordings):
    with pytest.raises(ValueError, match="None of the 1 recordings can be used"):
        drop_unusable([sample(recordings / "short.wav")], 0.1, None)


def test_nothing_to_report_leaves_no_report_of_an_earlier_run(tmp_path):
    report_skipped([{"audio": "a.wav", "reason": "empty"}], tmp_path)
    report_skipped([], tmp_path)
    assert not list(tmp_path.iterdir())
