"""Damaged recordings are found out, sound ones are not; each is heard once."""

import io
import os
import random
from dataclasses import dataclass

import numpy as np
import pytest
from encoded_audio import CODECS, encoded, flipped
from tiny_models import noise

from speechverse.training.data import inspection
from speechverse.training.data.containers import find_damage, ogg_checksum
from speechverse.training.data.inspection import FactsCache, inspect_recording, inspect_recordings
from speechverse.training.data.recordings import EncodedAudio, Segment, TarMember


def hear(content: bytes):
    return inspect_recording(EncodedAudio("a recording", content))


@pytest.mark.parametrize("codec", CODECS)
def test_sound_recording_has_no_fault(codec):
    facts = hear(encoded(codec))
    assert facts.fault is None and facts.seconds == pytest.approx(0.5, abs=1e-4)
    assert facts.peak == pytest.approx(np.ptp(noise(0.5)) / 2, rel=0.1)


def test_checksum_is_that_of_the_ogg_pages():
    page = bytearray(encoded("vorbis")[:58])  # the first page: a head of 28 bytes and the 30 of the Vorbis header
    expected = int.from_bytes(page[22:26], "little")
    page[22:26] = bytes(4)
    assert ogg_checksum(bytes(page)) == expected


@pytest.mark.parametrize("codec", ["vorbis", "opus"])
def test_every_flipped_bit_of_an_ogg_file_is_found(codec):
    content = encoded(codec)
    # libsndfile itself would read many of these, and leave part of the recording out.
    for bit in random.Random(0).sample(range(8 * len(content)), 200):
        fault = hear(flipped(content, bit)).fault
        assert fault is not None and fault.split(":")[0] in ("damaged", "truncated", "unreadable"), bit


def test_every_flipped_bit_of_flac_frames_is_found():
    content = encoded("flac")
    start = content.index(b"\xff\xf8")  # of the first frame; what stands before has no checksum
    for bit in random.Random(0).sample(range(8 * start, 8 * len(content)), 100):
        assert hear(flipped(content, bit)).fault is not None, bit


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.95])
def test_truncated_file_is_found(codec, share):
    content = encoded(codec, noise(1.5))
    fault = hear(content[: int(share * len(content))]).fault
    assert fault is not None and fault.split(":")[0] in ("truncated", "unreadable", "empty", "damaged")


def test_what_follows_the_last_ogg_page_is_no_damage():
    content = encoded("vorbis")
    assert find_damage(io.BytesIO(content + b"TAG and more")) is None
    missing_page = content[:58] + content[58 + content[58:].index(b"OggS", 4) :]
    assert find_damage(io.BytesIO(missing_page)).startswith("damaged: an Ogg page is missing before byte 58")


def test_wav_of_unknown_length_is_no_damage():
    content = bytearray(encoded("wav"))
    start = content.index(b"data") + 4
    content[start : start + 4] = b"\xff\xff\xff\xff"  # as a program that writes to a pipe leaves it
    assert hear(bytes(content)).fault is None


@pytest.mark.parametrize(
    "content, expected",
    [
        (b"", "empty: the file holds no bytes"),
        (b"version https://git-lfs.github.com/spec/v1\n", "unreadable: Format not recognised."),
        (encoded("wav", np.zeros(0)), "empty"),
        (encoded("wav", np.full(8000, np.nan), subtype="FLOAT"), "not finite: NaN or infinite samples"),
        (encoded("wav", np.full(8000, np.inf), subtype="FLOAT"), "not finite: NaN or infinite samples"),
        (encoded("wav", rate=16), "wrong rate: 16 Hz; at least 1000 Hz is needed"),
    ],
)
def test_fault_is_named(content, expected):
    assert hear(content).fault == expected


@pytest.mark.parametrize("codec", CODECS)
def test_silence_is_told_from_the_most_quiet_speech(codec):
    steps = np.random.default_rng(0).integers(-1, 2, 16_000)  # dither of one 16-bit step
    for silent in (np.zeros(16_000), steps / 2**15):
        assert hear(encoded(codec, silent)).peak < 1e-4
    assert hear(encoded(codec, noise(1.0) * 0.01)).peak > 1e-3  # peak 4e-3: whispering, far from the microphone


def test_constant_offset_is_no_sound():
    assert hear(encoded("wav", np.full(8000, 0.5))).peak == 0


def test_channels_that_cancel_out_are_silent():
    wave = noise(0.5)
    assert hear(encoded("wav", np.stack([wave, -wave], axis=1), subtype="FLOAT")).peak < 1e-4


def test_long_file_is_heard_block_by_block(monkeypatch):
    whole = hear(encoded("flac"))
    monkeypatch.setattr(inspection, "BLOCK", 1000)
    assert hear(encoded("flac")) == whole


def test_recordings_of_every_form(tmp_path):
    content = encoded("flac")
    (tmp_path / "a.flac").write_bytes(content)
    (tmp_path / "archive").write_bytes(b"12345" + content)
    whole = inspect_recording(str(tmp_path / "a.flac"))
    assert whole == inspect_recording(TarMember(str(tmp_path / "archive"), "a.flac", 5, len(content)))
    assert inspect_recording(Segment(str(tmp_path / "a.flac"), 0.1, 0.3)).seconds == pytest.approx(0.2)
    gone = Segment(str(tmp_path / "gone.flac"), 0.1, 0.3)
    assert inspect_recording(gone) == inspect_recording(str(tmp_path / "gone.flac")) == ("not there", None, None)
    assert inspect_recording(str(tmp_path)).fault.startswith("unreadable: ")


def test_segment_past_the_end_of_its_file_is_found(tmp_path):
    (tmp_path / "a.flac").write_bytes(encoded("flac", noise(1.2)))
    assert inspect_recording(Segment(str(tmp_path / "a.flac"), 1.0, 2.0)).fault.startswith("unreadable: audio")
    assert inspect_recording(Segment(str(tmp_path / "a.flac"), 0.2, 1.25)).seconds == pytest.approx(1.0)


@pytest.mark.parametrize("codec", ["wav", "vorbis"])
def test_damage_of_the_file_behind_a_segment_is_found(codec, tmp_path):
    content = encoded(codec, noise(1.5))
    content = flipped(content, 8 * (len(content) - 100)) if codec == "vorbis" else content[: int(0.7 * len(content))]
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "archive").write_bytes(b"12345" + content)
    for whole in (
        str(tmp_path / "a"),
        TarMember(str(tmp_path / "archive"), "a", 5, len(content)),
        EncodedAudio("a", content),
    ):
        fault = inspect_recording(Segment(whole, 0.0, 0.3)).fault
        assert fault == inspect_recording(whole).fault
        assert fault.split(":")[0] in ("truncated", "damaged")


def test_file_behind_many_segments_is_looked_at_once(tmp_path, monkeypatch):
    looked = []
    monkeypatch.setattr(inspection, "find_damage", lambda stream: looked.append(stream))
    (tmp_path / "once.wav").write_bytes(encoded("wav", noise(1.0)))
    for index in range(5):
        inspect_recording(Segment(str(tmp_path / "once.wav"), index / 10, index / 10 + 0.1))
    assert len(looked) == 1


@pytest.fixture
def files(tmp_path):
    """150 recordings, more than one worker takes at a time; every seventh is not there."""
    (tmp_path / "a.wav").write_bytes(encoded("wav", noise(0.2)))
    for index in range(150):
        if index % 7:
            os.link(tmp_path / "a.wav", tmp_path / f"{index}.wav")
    return [str(tmp_path / f"{index}.wav") for index in range(150)]


def test_any_number_of_workers_hears_the_same(files):
    alone = inspect_recordings(files, workers=1)
    assert [facts.fault for facts in alone] == [None if index % 7 else "not there" for index in range(150)]
    assert inspect_recordings(files, workers=2) == alone


@dataclass(frozen=True)
class Deadly:
    """A recording that takes down the process that reads it."""

    name: str
    size: float = 1

    def read(self):
        os._exit(1)


def test_recording_that_crashes_its_decoder_is_found(files):
    audios = [*files[:100], Deadly("deadly"), *files[100:]]
    facts = inspect_recordings(audios, workers=2)
    assert facts.pop(100).fault == "unreadable: its decoder crashed"
    assert facts == inspect_recordings(files, workers=1)


def test_cache_knows_what_has_not_changed(files, tmp_path, monkeypatch):
    file = tmp_path / "cache" / "recordings.json"
    first = inspect_recordings(files, workers=1, cache=FactsCache(file))
    heard = []
    original = inspect_recording
    monkeypatch.setattr(inspection, "inspect_recording", lambda audio: heard.append(audio) or original(audio))
    os.utime(tmp_path / "a.wav", ns=(0, 0))  # all of them are links to it
    (tmp_path / "1.wav").unlink()
    (tmp_path / "1.wav").write_bytes(encoded("wav", noise(0.3)))
    os.utime(tmp_path / "1.wav", ns=(0, 0))  # of that time, but of another size
    inspect_recordings(files, workers=1, cache=FactsCache(file))
    assert heard == files  # the time is new; what is not there is looked for anew
    heard.clear()
    again = inspect_recordings(files, workers=1, cache=FactsCache(file))
    assert heard == files[::7]
    assert again[1].seconds == pytest.approx(0.3) and again[2:] == first[2:]


def test_cache_that_cannot_be_read_costs_no_more_than_time(files, tmp_path):
    file = tmp_path / "recordings.json"
    for content in ("{", "[]", '{"version": "of another kind", "recordings": {}}'):
        file.write_text(content)
        assert inspect_recordings(files[:3], workers=1, cache=FactsCache(file))[1].fault is None


def test_cache_knows_segments(tmp_path, monkeypatch):
    (tmp_path / "a.wav").write_bytes(encoded("wav", noise(1.0)))
    (tmp_path / "archive").write_bytes(b"12345" + encoded("wav", noise(1.0)))
    wholes = [str(tmp_path / "a.wav"), TarMember(str(tmp_path / "archive"), "a.wav", 5, 32_044)]
    segments = [Segment(whole, start, start + 0.3) for whole in wholes for start in (0.1, 0.5)]
    file = tmp_path / "recordings.json"
    first = inspect_recordings(segments, workers=1, cache=FactsCache(file))
    monkeypatch.setattr(inspection, "inspect_recording", lambda audio: pytest.fail(f"{audio} is heard again"))
    assert inspect_recordings(segments, workers=1, cache=FactsCache(file)) == first


def test_segments_late_in_a_long_recording_have_names_of_their_own():
    assert Segment("a.wav", 12345.61, 12350.0).name != Segment("a.wav", 12345.64, 12350.0).name


def test_interrupted_check_goes_on(files, tmp_path, monkeypatch):
    there = [file for index, file in enumerate(files) if index % 7]
    original, file = inspect_recording, tmp_path / "recordings.json"

    def interrupted(audio):
        if audio == there[100]:
            raise KeyboardInterrupt
        return original(audio)

    monkeypatch.setattr(inspection, "inspect_recording", interrupted)
    with pytest.raises(KeyboardInterrupt):
        inspect_recordings(there, workers=1, cache=FactsCache(file))
    heard = []
    monkeypatch.setattr(inspection, "inspect_recording", lambda audio: heard.append(audio) or original(audio))
    inspect_recordings(there, workers=1, cache=FactsCache(file))
    assert heard == there[100:]


def test_cache_is_saved_on_the_way(files, tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(inspection, "SAVE_EVERY", 40)
    cache = FactsCache(tmp_path / "recordings.json")
    monkeypatch.setattr(cache, "save", lambda: saved.append(len(cache._values)))
    there = [file for index, file in enumerate(files) if index % 7]
    inspect_recordings(there, workers=1, cache=cache)
    assert saved == [40, 80, 120, len(there)]
