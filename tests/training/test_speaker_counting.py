"""Clips of one and of two speakers: balanced, within their split, repeatable."""

import json
from collections import Counter

import numpy as np
import pytest
import soundfile

from speechverse.training.data.mixing import seeded
from speechverse.training.data.speaker_counting import _pairs, count_speakers


@pytest.fixture
def manifest(tmp_path):
    """Recordings of three speakers, each a tone of his own, in two splits."""
    rows = []
    for index in range(36):
        speaker, seconds = index % 3, 1 + (index % 5) / 4
        wave = 0.1 * np.sin(2 * np.pi * (200 + 300 * speaker) * np.arange(int(16_000 * seconds)) / 16_000)
        soundfile.write(tmp_path / f"{index}.wav", wave, 16_000)
        split = "test" if index >= 24 else "train"
        rows.append({"audio": f"{index}.wav", "timbre": f"t{speaker}", "split": split, "text": str(index)})
    path = tmp_path / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_clips_are_what_their_rows_say(manifest, tmp_path):
    sources = {row["audio"]: row for row in read(manifest)}
    rows = read(count_speakers(manifest, tmp_path / "counting"))
    assert Counter((row["split"], row["target"]) for row in rows) == {
        **{("train", "one"): 12, ("train", "two"): 12, ("test", "one"): 6, ("test", "two"): 6}
    }
    assert {row["task"] for row in rows} == {"sc"}
    for row in rows:
        pieces = [sources[name] for name in row["sources"]]
        assert row["sources"][0] != row["sources"][1]
        assert {piece["split"] for piece in pieces} == {row["split"]}
        assert row["speakers"] == list(dict.fromkeys(piece["timbre"] for piece in pieces))
        assert len(row["speakers"]) == {"one": 1, "two": 2}[row["target"]]
        assert row["overlap"] == 0 or row["target"] == "two" and row["gap"] < 0
        wave, rate = soundfile.read(tmp_path / "counting" / row["audio"])
        assert row["duration"] == len(wave) / rate and rate == 16_000
        spectrum = np.abs(np.fft.rfft(wave))
        heard = [
            spectrum[int(f * len(wave) / rate) - 3 : int(f * len(wave) / rate) + 4].max() for f in (200, 500, 800)
        ]
        assert {f"t{i}" for i in range(3) if heard[i] > 0.05 * max(heard)} == set(row["speakers"])


def test_same_seed_same_clips(manifest, tmp_path):
    one, two, other = (count_speakers(manifest, tmp_path / str(i), seed=seed) for i, seed in enumerate((0, 0, 1)))
    assert one.read_bytes() == two.read_bytes() != other.read_bytes()
    clips = [[path.read_bytes() for path in sorted(file.parent.glob("audio/*"))] for file in (one, two)]
    assert clips[0] == clips[1]


def test_too_few_recordings_and_missing_fields_are_named(manifest, tmp_path):
    with pytest.raises(ValueError, match="manifest.jsonl, line 1 has no field `speaker`"):
        count_speakers(manifest, tmp_path / "out", speaker="speaker")
    few = tmp_path / "few.jsonl"
    few.write_text("".join(json.dumps(row) + "\n" for row in read(manifest)[:3]))
    with pytest.raises(ValueError, match="The split 'train' has no second recording for .*: add another recording by"):
        count_speakers(few, tmp_path / "out")
    with pytest.raises(ValueError, match="nowhere is not a file"):
        count_speakers("nowhere", tmp_path / "out")


def rows_of(number, speakers):
    draw = np.random.default_rng(0)
    return [{"audio": str(index), "who": str(draw.integers(speakers)), "split": "train"} for index in range(number)]


def test_every_partner_is_as_likely():
    rows = rows_of(60, 4)
    speakers = np.array([row["who"] for row in rows])
    for (first, second), rank in zip(_pairs(rows, "train", "who", 3), range(60), strict=True):
        place = rows.index(first)
        partners = np.flatnonzero((speakers == first["who"]) == (rank % 2 == 0))
        partners = partners[partners != place]
        assert second is rows[seeded(3, f"partner train {place}").choice(partners)]


def test_a_pair_costs_no_pass_over_all_recordings(monkeypatch):
    class Counted(dict):
        looked = 0

        def __getitem__(self, key):
            Counted.looked += 1
            return super().__getitem__(key)

    rows = [Counted(row) for row in rows_of(2000, 5)]
    monkeypatch.setattr(np, "flatnonzero", lambda *_: pytest.fail("a pass over all recordings"))
    assert len(list(_pairs(rows, "train", "who", 0))) == 2000
    assert Counted.looked < 3 * 2000
