"""What a report shows of one system: bins, confusions, its layer mix, recordings that can be played."""

import base64
import io
import json
import tarfile

import jiwer
import numpy as np
import pytest
import soundfile
import torch
from report_pages import Page
from report_runs import OURS, make_lines, write_one
from safetensors.torch import save_file
from tiny_models import noise

from speechverse.evaluation import report
from speechverse.evaluation.report_data import OTHERS, UNREAD, bins_by, count_confusions, read_layer_mix, read_run
from speechverse.evaluation.report_players import make_player
from speechverse.modeling_speechverse.base_checkpoints import fingerprint


def test_bins_hold_what_lies_between_their_bounds(tmp_path):
    lines = make_lines("asr", ["asr"], 0.6, count=80)
    part = read_run(write_one(tmp_path / "a", lines)).parts["asr", "asr", "wer"]
    by_snr = {one.name: one for one in bins_by("snr", [part, None])}
    assert list(by_snr) == ["< 0", "0-5", "5-10", "10-15", "≥ 20", "clean"]
    clean = [line for line in lines if line["snr"] is None]
    truths, answers = [line["reference"] for line in clean], [line["answer"] for line in clean]
    assert by_snr["clean"].samples == len(clean)
    assert by_snr["clean"].intervals[0].value == pytest.approx(jiwer.wer(truths, answers))
    assert by_snr["clean"].intervals[1] is None
    by_duration = bins_by("duration", [part])
    assert sum(one.samples for one in by_duration) == 80
    short = [line for line in lines if 2 <= line["duration"] < 4]
    value = next(one for one in by_duration if one.name == "2-4").intervals[0].value
    assert value == pytest.approx(jiwer.wer([line["reference"] for line in short], [line["answer"] for line in short]))
    for line in lines:
        line["snr"] = line["duration"] = None
    part = read_run(write_one(tmp_path / "a", lines)).parts["asr", "asr", "wer"]
    assert bins_by("snr", [part]) == bins_by("duration", [part]) == []
    report.make_report([tmp_path / "a"], tmp_path / "out")
    assert "<svg" not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_confusions_by_hand(tmp_path):
    truths = ["stop", "stop", "stop", "play_music", "play_music", "ask_time"]
    answers = ["stop", "play_music", None, "play_music", "lights_off", "stop"]
    lines = make_lines("ic", ["ic"], 1, count=6)
    for line, truth, answer in zip(lines, truths, answers, strict=True):
        line |= {"reference": truth, "answer": answer}
    part = read_run(write_one(tmp_path / "a", lines)).parts["ic", "ic", "accuracy"]
    confusions = count_confusions(part)
    assert confusions.truths == ["play_music", "stop", "ask_time"]  # as the task lists them
    assert confusions.answers == ["play_music", "stop", "ask_time", "lights_off", UNREAD]
    assert confusions.counts.tolist() == [[1, 0, 0, 1, 0], [1, 1, 0, 0, 1], [0, 1, 0, 0, 0]]
    assert ("stop", UNREAD, 1) in confusions.mistakes and len(confusions.mistakes) == 4


def test_rare_ones_of_many_classes_share_a_row(tmp_path):
    lines = make_lines("ic", ["ic"], 1, count=90)
    for index, line in enumerate(lines):
        line["reference"] = line["answer"] = f"class {index if index < 30 else index % 5}"
    part = read_run(write_one(tmp_path / "a", lines)).parts["ic", "ic", "accuracy"]
    confusions = count_confusions(part)
    assert len(confusions.truths) == 20 and confusions.truths[-1] == OTHERS
    assert confusions.counts.sum() == 90 and np.diag(confusions.counts).sum() == 90
    assert confusions.counts[-1, -1] == 11 and not confusions.mistakes


def test_layer_mix_of_the_model_that_was_measured(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    name = "model.multi_modal_projector.layer_mix.weights"
    save_file({name: torch.tensor([0.5, -2.0, 1.5], dtype=torch.bfloat16)}, model / "model.safetensors")
    (model / "config.json").write_text(json.dumps({"layer_mix": "learned"}))
    system = OURS | {"model": str(model), "fingerprint": fingerprint(model)}
    run = read_run(write_one(tmp_path / "a", make_lines("ic", ["ic"], 0.5, count=5), system))
    assert read_layer_mix(run).weights == [0.5, -2.0, 1.5]
    report.make_report([tmp_path / "a"], tmp_path / "out")
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert "layer-mix" in [attributes.get("id") for attributes in page.with_tag("h2")]
    assert "The largest weight of 3 is that of layer 2: -2.000." in "".join(page.text)


def test_a_layer_mix_that_cannot_be_shown_says_why(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    name = "model.multi_modal_projector.layer_mix.weights"

    def why_not(tensors, measured=None, config='{"layer_mix": "learned"}'):
        save_file(tensors, model / "model.safetensors")
        (model / "config.json").write_text(config)
        system = OURS | {"model": str(model), "fingerprint": measured or fingerprint(model)}
        folder = write_one(tmp_path / "a", make_lines("ic", ["ic"], 0.5, count=5), system)
        report.make_report([folder], tmp_path / "out")
        texts = [(tmp_path / "out" / each).read_text(encoding="utf-8") for each in ("report.html", "report.md")]
        mix = read_layer_mix(read_run(folder))
        assert mix.weights is None and all(f"Not shown: {mix.fault}." in text for text in texts)
        assert "model</code>" not in texts[0] and 'id="layer-mix"' in texts[0]
        return mix.fault

    assert "not those that were measured" in why_not({name: torch.ones(3)}, "another")
    assert "hold no weights of it" in why_not({"other": torch.ones(3)})
    assert "cannot be read" in why_not({name: torch.ones(3)}, config="{")
    (model / "model.safetensors").write_bytes(b"short")
    system = OURS | {"model": str(model)}
    run = read_run(write_one(tmp_path / "a", make_lines("ic", ["ic"], 0.5, count=5), system))
    (model / "config.json").write_text('{"layer_mix": "learned"}')
    assert "cannot be read" in read_layer_mix(run).fault
    (model / "config.json").write_text('{"layer_mix": "last"}')
    assert read_layer_mix(run) is None
    (model / "config.json").unlink()
    assert read_layer_mix(run) is None


def test_recordings_are_made_small(tmp_path, monkeypatch):
    monkeypatch.setenv("CALLS", str(tmp_path))
    soundfile.write(tmp_path / "a.wav", np.stack([noise(5.5125)] * 2, axis=1), 44_100)

    def seconds(player):
        wave, rate = soundfile.read(io.BytesIO(base64.b64decode(player.uri.partition(",")[2])))
        assert rate == 16_000 and wave.ndim == 1
        return len(wave) / rate

    player = make_player("$CALLS/a.wav")
    assert player.uri.startswith("data:audio/mpeg;base64,") and not player.note
    assert seconds(player) == pytest.approx(2, abs=0.15)  # MP3 comes in frames
    assert len(player.uri) < (tmp_path / "a.wav").stat().st_size / 10
    assert seconds(make_player("$CALLS/a.wav [0.5-1.25 s]")) == pytest.approx(0.75, abs=0.15)
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        archive.add(tmp_path / "a.wav", "part/a.wav")
    assert seconds(make_player("$CALLS/all.tar/part/a.wav")) == pytest.approx(2, abs=0.15)
    soundfile.write(tmp_path / "long.wav", noise(70, 1), 16_000)
    long = make_player(f"{tmp_path}/long.wav")
    assert seconds(long) == pytest.approx(60, abs=0.15) and long.note == "The first 60 of 70 s."
    (tmp_path / "text.wav").write_text("no audio")
    assert make_player("$CALLS/text.wav").note == "The recording cannot be read."
    for missing in (
        "$CALLS/b.wav",
        "$CALLS/all.tar/part/b.wav",
        "https://nowhere.example/a.wav",
        "$CALLS/b.wav [1-2 s]",
    ):
        assert make_player(missing) == make_player("") and make_player(missing).uri is None
