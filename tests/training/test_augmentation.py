"""Noise and rooms: listed, drawn by line, recorded, and really in the audio."""

import json

import numpy as np
import pytest
import soundfile

from speechverse.training.data.augmentation import Augmentation, augment, list_noises
from speechverse.training.data.mixing import reverberate
from speechverse.training.data.synthesize import synthesize


@pytest.fixture
def noises(tmp_path):
    """A folder of noises of several lengths, rates and channels."""
    folder = tmp_path / "noises"
    (folder / "rain").mkdir(parents=True)
    draw = np.random.default_rng(0)
    soundfile.write(folder / "rain" / "b.wav", 0.1 * draw.standard_normal(4_000), 16_000)
    soundfile.write(folder / "a.FLAC", 0.1 * draw.standard_normal((441_000, 2)), 44_100, format="FLAC")
    (folder / "notes.txt").write_text("not audio")
    return folder


def test_folder_and_manifest_list_the_same(noises):
    folder, found = list_noises(noises)
    assert (folder, found) == (noises, [("a.FLAC", 10.0), ("rain/b.wav", 0.25)])
    manifest = noises / "noises.jsonl"
    manifest.write_text("".join(json.dumps({"audio": name, "label": "rain"}) + "\n" for name, _ in found))
    assert list_noises(manifest) == (folder, found)


def test_bad_noises_are_named(noises, tmp_path):
    (noises / "c.wav").write_text("no audio")
    with pytest.raises(ValueError, match="The noise c.wav in .* cannot be read"):
        list_noises(noises)
    soundfile.write(noises / "c.wav", np.zeros(0), 16_000)
    with pytest.raises(ValueError, match="The noise c.wav in .* is empty"):
        list_noises(noises)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no audio files"):
        list_noises(tmp_path / "empty")
    (noises / "noises.jsonl").write_text('{"audio": "a.FLAC"}\n{"path": "b"}\n')
    with pytest.raises(ValueError, match="noises.jsonl, line 2 is no object with `audio`"):
        list_noises(noises / "noises.jsonl")


def test_draws_are_of_seed_and_line_alone(noises):
    augmentation = Augmentation.from_options(noise=noises, snr=(0, 10), reverb=(0.2, 0.4))
    drawn = [augmentation.draw(0, index, {}, "line") for index in range(50)]
    assert drawn[7] == augmentation.draw(0, 7, {}, "line") != augmentation.draw(1, 7, {}, "line")
    assert all(0 <= d["snr"] <= 10 and 0.2 <= d["rt60"] <= 0.4 and 0 <= d["drr"] <= 10 for d in drawn)
    assert {d["noise"] for d in drawn} == {"a.FLAC", "rain/b.wav"}
    assert max(d["noise_start"] for d in drawn if d["noise"] == "a.FLAC") > 5

    fixed = augmentation.draw(0, 7, {"snr": 3, "rt60": None}, "line")
    assert fixed["snr"] == 3 and "rt60" not in fixed and fixed["noise"] == drawn[7]["noise"]
    assert augmentation.draw(0, 7, {"snr": None, "rt60": None}, "line") == {}
    dry = Augmentation.from_options(noise=noises, snr=(0, 10)).draw(0, 7, {}, "line")
    assert dry == {key: drawn[7][key] for key in ("snr", "noise", "noise_start")}


def test_silent_stretch_of_a_noise_is_left(tmp_path):
    noise = np.zeros(160_000)
    noise[80_000:88_000] = 0.1 * np.random.default_rng(0).standard_normal(8_000)
    soundfile.write(tmp_path / "knock.wav", noise, 16_000)
    speech = (0.1 * np.random.default_rng(1).standard_normal(16_000)).astype(np.float32)
    for start in (0.0, 4.9, 7.0, 9.9):
        mixed = augment(speech, {"snr": 10, "noise": "knock.wav", "noise_start": start}, tmp_path)
        ratio = 10 * np.log10(np.mean(speech**2) / np.mean((mixed - speech) ** 2))
        assert ratio == pytest.approx(10, abs=0.2)


def test_corpus_has_what_its_manifest_says(noises, tmp_path):
    pytest.importorskip("py_nanotts")
    pytest.importorskip("scipy")
    sentences = [{"text": f"Radio {i}."} for i in range(3)] + [{"text": "Radio 3.", "snr": None, "rt60": None}]
    options = {"voices": ["nanotts:en-US"], "num_workers": 1}

    def spoken(folder, **more):
        manifest = synthesize(sentences, tmp_path / folder, **options, **more)
        rows = [json.loads(line) for line in manifest.read_text().splitlines()]
        return rows, [soundfile.read(manifest.parent / row["audio"], dtype="float32")[0] for row in rows]

    _, clean = spoken("clean")
    rooms, reverberant = spoken("rooms", reverb=(0.2, 0.4))
    rows, noisy = spoken("noisy", reverb=(0.2, 0.4), noise=noises, snr=(0, 10))
    again, _ = spoken("noisy", reverb=(0.2, 0.4), noise=noises, snr=(0, 10))
    assert again == rows
    for i in range(3):
        assert rows[i]["duration"] == len(noisy[i]) / 16_000
        room = [rows[i][key] for key in ("rt60", "drr", "room_seed")]
        np.testing.assert_allclose(reverberant[i], reverberate(clean[i], *room), atol=1e-3)
        assert rooms[i].items() <= rows[i].items()
        noise = {key: rows[i][key] for key in ("snr", "noise", "noise_start")}
        np.testing.assert_allclose(noisy[i], augment(reverberant[i], noise, noises), atol=2e-3)
    assert rows[3]["snr"] is rows[3]["rt60"] is None and "noise" not in rows[3]
    np.testing.assert_array_equal(noisy[3], clean[3])
