"""Long recordings, asked about chunk by chunk."""

import numpy as np
import pytest
import soundfile
from tiny_models import noise, tiny_speller
from transformers import pipeline

from speechverse import Task, TaskBank
from speechverse.processing import long_form_speechverse
from speechverse.processing.long_audio_speechverse import cut_at_silences


RATE = 16_000
TASKS = TaskBank(
    [
        Task("asr", "speech-recognition", "ASR", ["write it"]),
        Task("er", "emotion-recognition", "Emotion", ["{labels}?"], {"happy": "", "sad": ""}),
    ]
)


@pytest.fixture(scope="module")
def ask():
    model, processor = tiny_speller("whisper", "t5", seed=3, tasks=TASKS)
    model.generation_config.update(max_new_tokens=6, do_sample=False)
    return pipeline("speech-instruction", model=model, processor=processor)


@pytest.fixture
def loud_is_speech(monkeypatch):
    """Cuts by loudness, so that noise can stand for speech."""

    def cut(blocks, rate, max_seconds, **options):
        return cut_at_silences(
            blocks, rate, max_seconds, detector=lambda frame: float(np.abs(frame).max() > 0.01), **options
        )

    monkeypatch.setattr(long_form_speechverse, "cut_at_silences", cut)


def talk(*seconds, pause=3.0):
    """Stretches of noise with silence between."""
    silence = np.zeros(round(pause * RATE), np.float32)
    stretches = [noise(length, seed) for seed, length in enumerate(seconds)]
    return np.concatenate([part for stretch in stretches for part in (stretch, silence)][:-1])


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "talk.flac"
    soundfile.write(path, talk(2.0, 1.5, 2.5), RATE)
    return str(path)


def test_chunks_are_answered_and_joined(ask, file, loud_is_speech):
    whole = ask(file, task="asr", chunk_length_s=5)
    assert len(whole["segments"]) == 3 and len(whole["skipped"]) == 2
    wave, _ = soundfile.read(file, dtype="float32")
    for segment in whole["segments"]:
        piece = wave[round(segment["start"] * RATE) : round(segment["end"] * RATE)]
        alone = ask({"array": piece, "sampling_rate": RATE}, task="asr")
        assert {"text": segment["text"], "answer": segment["answer"], "truncated": True} == alone
    assert whole["text"] == whole["answer"] == " ".join(segment["text"] for segment in whole["segments"]).strip()
    assert whole["truncated"] is True
    times = sorted([(s["start"], s["end"]) for s in whole["segments"]] + whole["skipped"])
    assert times[0][0] == 0 and times[-1][1] == pytest.approx(12.0)
    assert all(one[1] == pytest.approx(other[0]) for one, other in zip(times, times[1:], strict=False))


@pytest.mark.parametrize("batch_size", [2, 4])
def test_chunks_may_be_answered_in_batches(ask, file, loud_is_speech, batch_size):
    assert ask(file, task="asr", chunk_length_s=5, batch_size=batch_size) == ask(file, task="asr", chunk_length_s=5)


def test_other_answers_are_listed_with_their_times(ask, file, loud_is_speech):
    whole = ask({"audio": file, "task": "er"}, chunk_length_s=5)
    assert whole["answer"] == [segment["answer"] for segment in whole["segments"]]
    assert set(whole["answer"]) <= {"happy", "sad"} and len(whole["answer"]) == 3
    joint = ask({"audio": file, "task": ["asr", "er"]}, chunk_length_s=5, max_new_tokens=40)
    assert set(joint["answer"]["er"]) <= {"happy", "sad"} and len(joint["answer"]["er"]) == 3
    assert joint["answer"]["asr"] == " ".join(segment["answer"]["asr"] for segment in joint["segments"])


def test_windows_overlap_and_need_no_detector(ask, file):
    whole = ask(file, "write it", chunk_length_s=4, stride_length_s=0.5)
    assert [(segment["start"], segment["end"]) for segment in whole["segments"]] == [(0, 4), (3, 7), (6, 10), (9, 12)]
    assert "skipped" not in whole and whole["text"] == whole["answer"]


def test_a_short_rest_is_heard_as_well(ask):
    wave = {"array": noise(4.05), "sampling_rate": RATE}
    whole = ask(wave, "write it", chunk_length_s=2, stride_length_s=0)
    assert [(s["start"], s["end"]) for s in whole["segments"]] == [(0, 2), (2, 4), (4, pytest.approx(4.05))]


def test_every_way_to_give_inputs(ask, file, loud_is_speech):
    wave, _ = soundfile.read(file, dtype="float32")
    expected = ask(file, "write it", chunk_length_s=5)
    assert ask({"array": wave, "sampling_rate": RATE}, "write it", chunk_length_s=5) == expected
    assert ask(wave, "write it", sampling_rate=RATE, chunk_length_s=5) == expected
    assert ask([file, {"audio": [file]}], "write it", chunk_length_s=5) == [expected, expected]
    assert list(ask((one for one in [file]), "write it", chunk_length_s=5)) == [expected]
    assert ask(file, "write it", chunk_length_s=5, num_workers=2) == expected
    always = pipeline("speech-instruction", model=ask.model, processor=ask.processor, chunk_length_s=5)
    assert always(file, "write it") == expected


def test_a_recording_that_is_too_long_alone(ask, tmp_path, loud_is_speech):
    soundfile.write(tmp_path / "hour.wav", talk(20.0, 18.0), RATE)
    with pytest.raises(
        ValueError, match="too long: this encoder takes 30 s. The pipeline cuts it with chunk_length_s="
    ):
        ask(str(tmp_path / "hour.wav"), "write it")
    assert len(ask(str(tmp_path / "hour.wav"), "write it", chunk_length_s=30)["segments"]) == 2


def test_silence_alone_gives_an_empty_answer(ask, loud_is_speech):
    silence = {"array": np.zeros(5 * RATE, np.float32), "sampling_rate": RATE}
    assert ask(silence, task="asr", chunk_length_s=5) == {
        "text": "",
        "answer": "",
        "segments": [],
        "skipped": [(0.0, 5.0)],
    }
    assert ask(silence, task="er", chunk_length_s=5)["answer"] == []


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"chunk_length_s": 31},
            "chunk_length_s is 31; it must be at least 1.0 and at most 30, which is what this encoder",
        ),
        ({"chunk_length_s": 0}, "chunk_length_s is 0"),
        ({"chunk_length_s": 4, "stride_length_s": 2}, "stride_length_s is 2; .*less than half of chunk_length_s, 4"),
        ({"stride_length_s": 2}, "stride_length_s is given without chunk_length_s"),
        ({"chunk_length_s": 5, "num_beams": 2, "num_return_sequences": 2}, "leave out num_return_sequences"),
        (
            {"chunk_length_s": 5, "generate_kwargs": {"num_beams": 2, "num_return_sequences": 2}},
            "leave out num_return_sequences",
        ),
    ],
)
def test_mistake_in_cutting_is_named(options, message, ask, file):
    with pytest.raises(ValueError, match=message):
        ask(file, "write it", **options)


def test_one_recording_and_one_question(ask, file):
    with pytest.raises(ValueError, match="inputs of one recording each; this one has 2"):
        ask({"audio": [file, file], "instruction": "is <audio> like <audio>?"}, chunk_length_s=5)
    with pytest.raises(ValueError, match="one question about a recording"):
        ask(file, ["write it", "again"], chunk_length_s=5)
