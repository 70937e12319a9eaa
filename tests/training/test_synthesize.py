"""Speaking sentences offline: exact repetition, carried fields, resuming, and errors that say what to do."""

import hashlib
import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechverse.training.data import synthesize as module
from speechverse.training.data.augmentation import Augmentation
from speechverse.training.data.chunks import Chunk
from speechverse.training.data.overlaps import overlaps
from speechverse.training.data.synthesize import synthesize
from speechverse.training.data.tts_engines import ENGINES, VOICES, installed_voices
from speechverse.training.data.voice_pool import VoicePool, group_timbres


SENTENCES = [
    {"text": "Set an alarm for seven.", "task": "slu", "target": "alarm_set", "split": "train"},
    {"text": "Stell einen Wecker.", "voice": "nanotts:de-DE", "speed": 1, "pitch": 1.0, "language": "de"},
    {"text": "你好", "target": "silent"},
    {"text": "Is x < y, or <ignore>not at all</ignore>?", "nested": {"list": [1, None, "é"]}},
    {"text": "Play some quiet music in the kitchen."},
]
NANOTTS = ["nanotts:en-US", "nanotts:en-GB"]


@pytest.fixture
def nanotts():
    pytest.importorskip("py_nanotts")


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(module, "CHUNK_SIZE", 2)


@pytest.fixture
def runs(monkeypatch):
    """First line of each chunk that was spoken, in the order of starting."""
    started = []
    run = Chunk.run

    def counted(chunk):
        started.append(chunk.calls[0]["index"])
        run(chunk)

    monkeypatch.setattr(Chunk, "run", counted)
    return started


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def digests(folder: Path) -> dict[str, str]:
    """Name and content of every file that a user sees."""
    files = [path for path in folder.rglob("*") if path.is_file() and ".chunks" not in path.parts]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_manifest_carries_fields_and_lists_the_silent(nanotts, tmp_path, caplog):
    manifest = synthesize(SENTENCES, tmp_path / "spoken", voices=NANOTTS)
    spoken = rows(manifest)
    assert manifest == tmp_path / "spoken" / "manifest.jsonl"
    assert [row["text"] for row in spoken] == [SENTENCES[i]["text"] for i in (0, 1, 3, 4)]
    for row, index in zip(spoken, (0, 1, 3, 4), strict=True):
        assert SENTENCES[index].items() <= row.items()
        assert row["audio"] == f"audio/{index:06d}.flac"
        assert row["engine"].startswith("nanotts==")
        audio, rate = soundfile.read(manifest.parent / row["audio"], dtype="float32")
        assert rate == 16_000 and audio.ndim == 1
        assert row["duration"] == len(audio) / rate
        assert 0.1 < np.abs(audio).max() < 1
    assert spoken[1]["voice"] == spoken[1]["timbre"] == "nanotts:de-DE" and spoken[1]["gender"] == "female"
    assert spoken[1]["speed"] == spoken[1]["pitch"] == 1
    for row in (spoken[0], *spoken[2:]):
        assert row["voice"] in NANOTTS and row["accent"] in ("American", "British") and row["language"] == "en"
        assert 0.9 <= row["speed"] <= 1.2 and 0.85 <= row["pitch"] <= 1.2

    (skipped,) = rows(manifest.parent / "skipped.jsonl")
    assert (skipped["index"], skipped["text"], skipped["reason"]) == (2, "你好", "silent")
    assert "Skipped 1 of 5 sentences" in caplog.text and "line 3" in caplog.text
    assert not (manifest.parent / "audio" / "000002.flac").exists()


def test_number_of_workers_does_not_change_a_byte(nanotts, small_chunks, tmp_path):
    for num_workers in (1, 2):
        synthesize(SENTENCES * 3, tmp_path / str(num_workers), voices=NANOTTS, num_workers=num_workers)
    assert len(digests(tmp_path / "1")) == 12 + 2
    assert digests(tmp_path / "1") == digests(tmp_path / "2")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to serve cleared memory")
def test_audio_depends_on_its_line_alone(nanotts, small_chunks, tmp_path):
    voices = [voice for voice in VOICES if ENGINES[VOICES[voice].engine].version()]
    sentences = [{"text": f"Radio {i}.", "voice": voices[i % len(voices)], "speed": 1.1} for i in range(24)]
    sentences = [s | {"pitch": 0.9 if VOICES[s["voice"]].pitched else 1} for s in sentences]
    there, back = tmp_path / "there", tmp_path / "back"
    synthesize(sentences, there)
    synthesize(sentences[::-1], back)
    audio = [[path.read_bytes() for path in sorted(folder.glob("audio/*.flac"))] for folder in (there, back)]
    assert audio[0] == audio[1][::-1]


def plan(sentences, seed=0, voices=NANOTTS, held_out=(), pitch=None, **augmentation):
    pool = VoicePool(voices, held_out=held_out)
    options = Augmentation.from_options(**augmentation)
    return module._plan_calls(sentences, pool, (0.5, 2.0), pitch, options, seed, "sentences")


def test_draws_depend_on_seed_and_line_alone(nanotts):
    calls = plan([{"text": "One."}] * 50)
    fixed = plan([{"text": "Two.", "speed": 1.5}] * 20)
    other = plan([{"text": "One."}] * 50, seed=1)
    assert [call["pitch"] for call in fixed] == [call["pitch"] for call in calls[:20]]
    assert all(call["speed"] == 1.5 for call in fixed)
    assert [call["speed"] for call in other] != [call["speed"] for call in calls]
    assert {call["voice"] for call in calls} == set(NANOTTS)
    alone = plan([{"text": "One."}] * 50, voices=NANOTTS[:1])
    assert [call["pitch"] for call in alone] == [call["pitch"] for call in calls]
    roomy = plan([{"text": "One."}] * 50, reverb=(0.2, 0.8))
    assert all(call.items() <= room.items() for call, room in zip(calls, roomy, strict=True))


def test_every_timbre_is_as_likely_as_another(monkeypatch):
    """The eight accents of espeak-ng do not drown the others."""
    for engine in ENGINES.values():
        monkeypatch.setattr(engine, "version", classmethod(lambda cls: "1"))
    calls = plan([{"text": "One."}] * 2400, voices=None)
    counts = {timbre: 0 for timbre in group_timbres(installed_voices("en"))}
    for call in calls:
        counts[VOICES[call["voice"]].timbre] += 1
        assert call["pitch"] == 1 or VOICES[call["voice"]].pitched
    assert len(counts) >= 8
    assert all(240 < count < 360 for count in counts.values())  # 300 each, 3.6 standard deviations
    assert {call["voice"] for call in calls} == {voice.name for voice in installed_voices("en")}


def test_held_out_voices_speak_the_test_alone(nanotts, tmp_path):
    splits = ["train", "test", "validation", None] * 10
    sentences = [{"text": f"Radio {i}."} | ({"split": s} if s else {}) for i, s in enumerate(splits)]
    spoken = rows(synthesize(sentences, tmp_path, voices=NANOTTS, held_out_voices=["nanotts:en-GB"]))
    for row in spoken:
        held_out = row.get("split") == "test"
        assert row["voice"] == NANOTTS[held_out]
        assert row["voice_split"] == ("held-out" if held_out else "seen")
    shared = overlaps(spoken)
    assert all((count["timbre"] == 0) == ("test" in pair) for pair, count in shared.items())

    with pytest.raises(ValueError, match="line 1, field `voice`: nanotts:en-GB is held out from the split 'train'"):
        plan([{"text": "Hi.", "voice": "nanotts:en-GB", "split": "train"}], held_out=["nanotts:en-GB"])


@pytest.mark.parametrize("name", ENGINES)
def test_every_voice_speaks_and_no_engine_breathes_for_speech(name, tmp_path):
    if not ENGINES[name].version():
        pytest.skip(f"{name} is not installed: {ENGINES[name].installer} {ENGINES[name].package}")
    voices = [voice.name for voice in VOICES.values() if voice.engine == name]
    sentences = [{"text": "Radio.", "voice": voice} for voice in voices]
    sentences += [
        {"text": "Play some quiet music in the kitchen.", "voice": voices[0], "speed": speed} for speed in (1.0, 2.0)
    ]
    sentences += [{"text": text} for text in ("...", "你好", "🙂")]
    spoken = rows(synthesize(sentences, tmp_path, voices=voices[:1]))
    assert [row["voice"] for row in spoken[:-2]] == voices
    assert 0.4 < spoken[-1]["duration"] / spoken[-2]["duration"] < 0.75
    assert {soundfile.info(tmp_path / row["audio"]).samplerate for row in spoken} == {16_000}
    assert len(rows(tmp_path / "skipped.jsonl")) == 3


def test_one_run_mixes_engines(tmp_path):
    installed = installed_voices("en")
    if len({voice.engine for voice in installed}) < 2:
        pytest.skip("fewer than two engines are installed")
    spoken = rows(synthesize([{"text": f"Radio {i}."} for i in range(40)], tmp_path))
    assert {row["timbre"] for row in spoken} == set(group_timbres(installed))
    assert all(row["engine"].startswith(row["voice"].partition(":")[0] + "==") for row in spoken)


def test_markup_is_spoken_not_obeyed(nanotts):
    engine = ENGINES["nanotts"]()
    lengths = [len(engine.speak(text, "en-US", 1.0, 1.0)) for text in ("there", "<ignore>hello world</ignore> there")]
    assert lengths[1] > 3 * lengths[0]


def test_interrupted_run_resumes_with_the_missing_chunks(nanotts, small_chunks, runs, monkeypatch, tmp_path):
    reference = synthesize(SENTENCES, voices=NANOTTS, output_dir=tmp_path / "reference").parent
    runs.clear()

    def interrupt(chunk):
        if runs:
            raise KeyboardInterrupt
        counted(chunk)

    counted = Chunk.run
    folder = tmp_path / "interrupted"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Chunk, "run", interrupt)
        synthesize(SENTENCES, voices=NANOTTS, output_dir=folder, num_workers=1)
    assert runs == [0]
    assert not (folder / "manifest.jsonl").exists()

    synthesize(SENTENCES, voices=NANOTTS, output_dir=folder, num_workers=1)
    assert runs == [0, 2, 4]
    assert digests(folder) == digests(reference)

    synthesize([sentence | {"split": "test"} for sentence in SENTENCES], folder, voices=NANOTTS)
    assert runs == [0, 2, 4], "other labels need no new speech"
    assert rows(folder / "manifest.jsonl")[0]["split"] == "test"

    (folder / "audio" / "000004.flac").unlink()
    synthesize(SENTENCES, voices=NANOTTS, output_dir=folder)
    assert runs == [0, 2, 4, 4]
    assert digests(folder) == digests(reference)

    synthesize(SENTENCES, voices=NANOTTS, output_dir=folder, seed=1, num_workers=1)
    assert runs == [0, 2, 4, 4, 0, 2, 4], "another seed leaves no audio of the first"
    assert digests(folder) != digests(reference)


def test_dying_process_names_its_lines(nanotts, small_chunks, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(RuntimeError, match="sentences, lines 1 to 2 could not be spoken .*: run again"):
        synthesize(SENTENCES, tmp_path, voices=NANOTTS, num_workers=1)
    assert not (tmp_path / "manifest.jsonl").exists()


@pytest.mark.parametrize(
    "sentence, message",
    [
        ({"task": "asr"}, "line 2 has no field `text`"),
        ({"text": " "}, "line 2, field `text` is ' '"),
        ({"text": 7}, "line 2, field `text` is 7"),
        ({"text": "a\0b"}, "line 2, field `text` .* no NUL"),
        ("Hello.", "line 2 is a str: give an object"),
        (
            {"text": "Hi.", "voice": "sv-SE"},
            "line 2, field `voice`: there is no voice 'sv-SE', choose from nanotts:en-US",
        ),
        ({"text": "Hi.", "voice": ["nanotts:en-US"]}, "line 2, field `voice`: there is no voice"),
        ({"text": "Hi.", "speed": 9}, "line 2, field `speed` is 9: nanotts:en-.. takes a number from 0.2 to 5.0"),
        ({"text": "Hi.", "pitch": "high"}, "line 2, field `pitch` is 'high'"),
        ({"text": "Hi.", "audio": "a.wav"}, "line 2, field `audio` would be overwritten"),
        ({"text": "Hi.", "timbre": "me"}, "line 2, field `timbre` would be overwritten"),
        ({"text": "Hi.", "snr": 10}, "line 2, field `snr` asks for noise"),
        ({"text": "Hi.", "rt60": -1}, "line 2, field `rt60` is -1: give null or a number from 0.05"),
        ({"text": "Hi.", "target": {1, 2}}, "line 2 cannot be written as JSON"),
        ({"text": "Hi.", "target": "\ud800"}, "line 2 cannot be written as JSON"),
    ],
)
def test_bad_sentence(nanotts, sentence, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        synthesize([{"text": "Fine."}, sentence], tmp_path / "out", voices=NANOTTS)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"voices": ["heart"]}, "`voices`: there is no voice 'heart', choose from nanotts:en-US"),
        (
            {"voices": ["nanotts:heart"]},
            "`voices`: there is no voice .*, choose from nanotts:en-US, .*nanotts:it-IT.$",
        ),
        ({"held_out_voices": NANOTTS}, "`held_out_voices` leaves no voice to train with"),
        ({"test_voices": "some"}, "`test_voices` is 'some': choose one of held-out, seen, all"),
        ({"language": "sv"}, "`language` is 'sv': choose one of de, en"),
        ({"snr": (0, 10)}, "`snr` is given without `noise`"),
        ({"reverb": (0.5, 0.2)}, "`reverb` is \\[0.5, 0.2\\]: give the lowest"),
        ({"noise": "nowhere"}, "`noise` is 'nowhere': give a folder"),
        ({"shards": 0}, "`shards` is 0"),
        ({"only_shards": True}, "`only_shards` is given without `shards`"),
        ({"speed": (1.2, 0.9)}, "`speed` is \\[1.2, 0.9\\]: give the lowest"),
        ({"pitch": (0.1, 1.0)}, "`pitch` is 0.1: nanotts:en-US takes a number from 0.5"),
        ({"seed": -1}, "`seed` is -1"),
        ({"num_workers": 0}, "`num_workers` is 0"),
        ({"sentences": []}, "sentences holds no sentences"),
    ],
)
def test_bad_option(nanotts, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        synthesize(**{"sentences": SENTENCES, "output_dir": tmp_path / "out", "voices": NANOTTS} | options)
    assert not (tmp_path / "out").exists()


def test_voice_without_pitch_says_so(tmp_path):
    pytest.importorskip("hibari")
    with pytest.raises(ValueError, match="`pitch` is 0.9: hibari:heart takes a number from 1.0 to 1.0"):
        synthesize([{"text": "Hi."}], tmp_path, voices=["hibari:heart"], pitch=(0.9, 1.1))


def test_pitch_range_is_for_the_voices_that_have_one(nanotts):
    pytest.importorskip("hibari")
    calls = plan([{"text": "Hi."}] * 40, voices=["nanotts:en-US", "hibari:heart"], pitch=(0.9, 0.95))
    assert {call["pitch"] for call in calls if call["voice"] == "hibari:heart"} == {1.0}
    assert all(0.9 <= call["pitch"] <= 0.95 for call in calls if call["voice"] == "nanotts:en-US")


def test_engine_not_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(ENGINES["nanotts"], "package", "py-nanotts-that-nobody-installed")
    with pytest.raises(ImportError, match="`nanotts` is not installed: run `pip install py-nanotts-that"):
        synthesize(SENTENCES, tmp_path, voices=NANOTTS)
    with pytest.raises(ImportError, match="`nanotts` is not installed"):
        synthesize([{"text": "Hi.", "voice": "nanotts:en-US"}], tmp_path)


def test_no_engine_installed(monkeypatch, tmp_path):
    for engine in ENGINES.values():
        monkeypatch.setattr(engine, "version", classmethod(lambda cls: None))
    with pytest.raises(ImportError, match="No engine for this language is installed: run `pip install py-nanotts"):
        synthesize([{"text": "Hi."}], tmp_path)


def test_reverberation_needs_scipy(nanotts, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="Reverberation needs scipy: run `pip install scipy`"):
        synthesize([{"text": "Hi."}], tmp_path / "out", voices=NANOTTS, reverb=(0.2, 0.4))
    assert not (tmp_path / "out").exists()


def run_command(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, module.__file__, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8")


def test_command_equals_the_function(nanotts, tmp_path):
    source = tmp_path / "sentences.jsonl"
    source.write_text("".join(json.dumps(sentence) + "\n" for sentence in SENTENCES))
    options = ["--voices", "nanotts:en-GB", "--speed", 0.8, 1.3, "--pitch", 1.0, 1.1, "--seed", 3, "--num-workers", 1]
    process = run_command(source, "--out", tmp_path / "command", *options)
    assert process.returncode == 0, process.stderr
    assert "Skipped 1 of 5" in process.stderr and "Spoke 4 sentences" in process.stderr
    synthesize(SENTENCES, tmp_path / "function", voices=["nanotts:en-GB"], speed=(0.8, 1.3), pitch=(1.0, 1.1), seed=3)
    assert digests(tmp_path / "command") == digests(tmp_path / "function")


@pytest.mark.parametrize(
    "content, message",
    [
        (b'{"text": "Fine."}\n{"text": \n', "sentences.jsonl, line 2 is not JSON"),
        (b'{"text": "Fine."}\n\n', "sentences.jsonl, line 2 is not JSON"),
        (b'{"text": "\xff"}\n', "sentences.jsonl, line 1 is not JSON"),
        (b'{"text": ""}\n', "sentences.jsonl, line 1, field `text` is ''"),
        (None, "sentences.jsonl is not a file"),
    ],
)
def test_command_explains_a_bad_file_in_one_line(nanotts, content, message, tmp_path):
    source = tmp_path / "sentences.jsonl"
    if content is not None:
        source.write_bytes(content)
    process = run_command(source, "--out", tmp_path / "out")
    assert process.returncode == 1
    assert process.stderr.startswith("error: ") and message in process.stderr
    assert process.stderr.count("\n") == 1
