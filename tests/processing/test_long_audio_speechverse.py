"""Long recordings: the stream is the recording, no speech is lost where it is cut, no word where it is joined."""

import builtins
import io
import shutil
import subprocess
import sys
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.pipelines.automatic_speech_recognition import chunk_iter

from speechverse.processing import audio_speechverse
from speechverse.processing.audio_speechverse import load_audio
from speechverse.processing.long_audio_speechverse import (
    BLOCK_SECONDS,
    AudioChunk,
    SileroDetector,
    cut_at_silences,
    join_transcripts,
    overlapping_windows,
    stream_audio,
)


RATE = 16_000
PROPERTY = settings(max_examples=40, deadline=None, derandomize=True)
FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "vorbis.ogg": ("OGG", "VORBIS"),
    "opus.ogg": ("OGG", "OPUS"),
}


def noise(seconds, rate=RATE, channels=None, seed=0):
    shape = round(seconds * rate) if channels is None else (round(seconds * rate), channels)
    return (0.1 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def encoded(suffix, wave, rate) -> bytes:
    buffer = io.BytesIO()
    file_format, subtype = FORMATS[suffix]
    soundfile.write(buffer, wave, rate, format=file_format, subtype=subtype)
    return buffer.getvalue()


def joined(blocks):
    blocks = list(blocks)
    assert all(block.dtype == np.float32 and block.ndim == 1 and len(block) for block in blocks)
    return np.concatenate(blocks)


# The stream


@pytest.mark.parametrize(
    "suffix, rate", [*((suffix, RATE) for suffix in FORMATS), ("wav", 8000), ("mp3", 8000), ("flac", 44_100)]
)
def test_stream_of_a_file_is_what_load_audio_reads(suffix, rate, tmp_path):
    file = tmp_path / f"noise.{suffix}"
    file.write_bytes(encoded(suffix, noise(2 * BLOCK_SECONDS + 3.21, rate, channels=2), rate))
    blocks = list(stream_audio(file, RATE))
    assert len(blocks) >= 3 and max(map(len, blocks)) <= 2 * BLOCK_SECONDS * RATE
    expected = load_audio(file, RATE)
    np.testing.assert_allclose(joined(blocks), expected, atol=1e-6 if rate == RATE else 1e-4)
    if rate == RATE and suffix != "mp3":  # whose decoder rounds by where it is read
        assert np.array_equal(joined(blocks), expected)


@pytest.mark.parametrize(
    "source_of",
    [
        str,
        lambda file: file.read_bytes(),
        lambda file: bytearray(file.read_bytes()),
        lambda file: {"bytes": file.read_bytes(), "path": "gone.wav"},
        lambda file: {"bytes": None, "path": str(file)},
        lambda file: file.as_uri().replace("file://", "http://"),
        lambda file: {"array": soundfile.read(file)[0], "sampling_rate": RATE},
        lambda file: {"array": soundfile.read(file)[0].T, "sampling_rate": RATE},
        lambda file: {"array": torch.from_numpy(soundfile.read(file, dtype="int16")[0]), "sampling_rate": RATE},
        lambda file: SimpleNamespace(
            get_all_samples=lambda: SimpleNamespace(data=torch.from_numpy(soundfile.read(file)[0].T), sample_rate=RATE)
        ),
    ],
    ids=["str", "bytes", "bytearray", "dict", "path", "url", "array", "channels-first", "integers", "torchcodec"],
)
def test_stream_takes_what_load_audio_takes(source_of, tmp_path, monkeypatch):
    monkeypatch.setattr(
        audio_speechverse.urllib.request, "urlopen", lambda url, timeout: open(url.replace("http://", ""), "rb")
    )
    file = tmp_path / "noise.wav"
    file.write_bytes(encoded("wav", noise(BLOCK_SECONDS + 1 / RATE, channels=2), RATE))  # its last block is one sample
    source = source_of(file)
    blocks = list(stream_audio(source, RATE))
    assert len(blocks[-1]) == 1
    assert np.array_equal(joined(blocks), load_audio(source, RATE))


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050.0, 44_100])
def test_stream_of_an_array_is_resampled_without_seams(rate):
    wave = noise(2 * BLOCK_SECONDS + 1.2345, rate)
    np.testing.assert_allclose(joined(stream_audio(wave, RATE, rate)), load_audio(wave, RATE, rate), atol=1e-4)


def test_stream_holds_no_more_of_a_longer_file(tmp_path):
    peaks = []
    for minutes in (2, 8):
        file = tmp_path / f"{minutes}.flac"
        with soundfile.SoundFile(file, "w", 8000, 1) as written:
            for minute in range(minutes):
                written.write(noise(60, 8000, seed=minute))
        tracemalloc.start()
        samples = sum(map(len, stream_audio(file, RATE)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert samples == minutes * 60 * RATE
    assert peaks[1] < 1.1 * peaks[0] < 4 * BLOCK_SECONDS * RATE * 4


@pytest.mark.parametrize(
    "source, rate, error, message",
    [
        ("no/such/call.wav", None, FileNotFoundError, "'no/such/call.wav' is not there"),
        (b"Dear Sir or Madam", None, ValueError, "given as bytes is not audio that can be read"),
        (np.zeros(RATE), None, ValueError, "has no rate: pass sampling_rate="),
        (np.zeros(RATE), 16, ValueError, "sampling rate 16; it must be a number of Hz, at least 1000"),
        (np.zeros((2, 2, RATE)), RATE, ValueError, "has 3 dimensions"),
    ],
)
def test_source_that_cannot_be_streamed_is_refused_at_once(source, rate, error, message):
    with pytest.raises(error, match=message):
        stream_audio(source, RATE, rate)


@pytest.mark.parametrize(
    "source, message",
    [
        (np.zeros(0), "is empty"),
        (np.zeros((0, 2)), "is empty"),
        (encoded("wav", np.zeros(0), RATE), "is empty"),
        (np.zeros(1599), r"lasts 0\.100 s; at least 0\.1 s"),
        ([1000] * RATE, "int64, which has no full scale"),
    ],
)
def test_recording_that_cannot_be_streamed_is_refused(source, message):
    with pytest.raises(ValueError, match=message):
        list(stream_audio(source, RATE, RATE))


def test_block_with_nan_is_found_when_it_is_reached():
    wave = noise(3 * BLOCK_SECONDS)
    wave[2 * BLOCK_SECONDS * RATE + 7] = np.nan
    blocks = stream_audio(wave, RATE, RATE)
    next(blocks), next(blocks)
    with pytest.raises(ValueError, match=f"ndarray, {2 * BLOCK_SECONDS} s in, holds NaN or infinite samples: 1 of"):
        next(blocks)


def test_stream_that_needs_soxr_says_so(monkeypatch):
    monkeypatch.setattr(audio_speechverse, "soxr", None)
    assert len(joined(stream_audio(noise(1), RATE, RATE))) == RATE
    with pytest.raises(ImportError, match="8000 Hz.*16000 Hz.*pip install soxr"):
        stream_audio(noise(1), RATE, 8000)


# Cutting at silences


def loud(frame) -> float:
    """Stands in for the voice activity detector."""
    return float(np.abs(frame).max() > 0.02)


def recording(stretches, rate=RATE):
    """Samples of talk, which is never at zero, and silence, which is, in turns; and where the talk is."""
    wave = np.concatenate(
        [np.full(round(seconds * rate), 0.5 if index % 2 else 0.0) for index, seconds in enumerate(stretches)]
    ).astype(np.float32)
    wave *= np.random.default_rng(0).uniform(0.5, 1.0, len(wave)).astype(np.float32)
    return wave


def in_blocks(wave, size=7 * RATE + 11):
    return (wave[start : start + size] for start in range(0, len(wave), size))


def cut(wave, max_seconds, rate=RATE, size=7 * RATE + 11, **options):
    chunks = cut_at_silences(in_blocks(wave, size), rate, max_seconds, **{"detector": loud, **options})
    return list(chunks), chunks


def assert_nothing_is_lost(wave, chunks, skipped, max_seconds, rate=RATE):
    """Chunks and silences, in turns, are the recording; no silence holds talk."""
    parts = sorted([(c.start, c.end) for c in chunks] + skipped)
    assert [c.start for c in chunks] == sorted(c.start for c in chunks)
    assert parts[0][0] == 0 and parts[-1][1] == len(wave) / rate
    assert all(before[1] == after[0] for before, after in zip(parts, parts[1:], strict=False))
    for chunk in chunks:
        start, end = round(chunk.start * rate), round(chunk.end * rate)
        assert 0 < end - start <= max_seconds * rate
        assert chunk.array.dtype == np.float32 and np.array_equal(chunk.array, wave[start:end])
        assert chunk.array.any(), "a chunk of silence"
    for start, end in skipped:
        assert not wave[round(start * rate) : round(end * rate)].any()


STRETCHES = st.lists(st.floats(0.15, 9), min_size=1, max_size=14)


@PROPERTY
@given(STRETCHES, st.sampled_from([4, 5.5, 12]), st.sampled_from([500, RATE, 100 * RATE]))
def test_no_speech_is_lost(stretches, max_seconds, size):
    wave = recording(stretches)
    chunks, iterator = cut(wave, max_seconds, size=size)
    assert_nothing_is_lost(wave, chunks, iterator.skipped, max_seconds)
    assert iterator.seconds == len(wave) / RATE


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100])
def test_no_speech_is_lost_at_another_rate(rate):
    wave = recording([0.4, 3, 0.5, 4, 3, 12, 0.7, 2, 5], rate)
    chunks, iterator = cut(wave, 6, rate)
    assert_nothing_is_lost(wave, chunks, iterator.skipped, 6, rate)
    assert len(iterator.skipped) == 2


@PROPERTY
@given(st.lists(st.tuples(st.floats(0.5, 1.9), st.floats(0.6, 1.9)), min_size=1, max_size=12))
def test_speech_with_pauses_is_cut_within_them(stretches):
    wave = recording([seconds for pair in stretches for seconds in pair])
    chunks, _ = cut(wave, 5)
    for chunk in chunks[:-1]:
        end = round(chunk.end * RATE)
        assert not wave[end - 2000 : end + 2000].any(), "cut next to a word"


def test_speech_is_cut_in_the_middle_of_the_longest_late_pause():
    chunks, iterator = cut(recording([0, 2, 1.5, 4, 1.0, 2, 0.5, 9]), 12)
    assert [chunk.end for chunk in chunks] == pytest.approx([8.0, 20.0], abs=0.05)
    assert iterator.skipped == []


def test_an_early_pause_is_better_than_none():
    chunks, _ = cut(recording([0, 2, 1, 9]), 10)
    assert [chunk.end for chunk in chunks] == pytest.approx([2.5, 12], abs=0.05)


@pytest.mark.parametrize("quiet_at", [8.0, 9.5])
def test_speech_without_a_pause_is_cut_where_it_is_quietest(quiet_at):
    wave = recording([0, 15])
    wave[round((quiet_at - 0.1) * RATE) : round((quiet_at + 0.1) * RATE)] *= 0.2  # still speech
    wave[3 * RATE : 4 * RATE] *= 0.1  # too early
    chunks, _ = cut(wave, 10)
    assert chunks[0].end == pytest.approx(quiet_at, abs=0.1)
    assert_nothing_is_lost(wave, chunks, [], 10)


def test_the_end_of_speech_is_not_cut_off_for_want_of_padding():
    wave = recording([3, 3.375, 1])  # with its padding, a little longer than a chunk
    chunks, iterator = cut(wave, 4)
    assert_nothing_is_lost(wave, chunks, iterator.skipped, 4)
    assert all(np.count_nonzero(chunk.array) > 0.3 * RATE for chunk in chunks)


def test_long_silences_are_left_out_and_listed():
    wave = recording([4, 3, 2.5, 1, 1.5, 2, 6])
    chunks, iterator = cut(wave, 30)
    assert [(c.start, c.end) for c in chunks] == [
        pytest.approx(times, abs=0.04) for times in [(3.5, 7.5), (9.0, 14.5)]
    ]
    assert iterator.skipped == [pytest.approx(times, abs=0.04) for times in [(0, 3.5), (7.5, 9.0), (14.5, 20)]]


def test_what_is_skipped_is_known_as_soon_as_the_chunk_after_it():
    chunks = cut_at_silences(in_blocks(recording([4, 3, 2.5, 1, 6]), RATE), RATE, 30, detector=loud)
    next(chunks)
    assert len(chunks.skipped) == 1 and chunks.seconds < 17
    next(chunks)
    assert len(chunks.skipped) == 2


@pytest.mark.parametrize("wave", [np.zeros(0, np.float32), np.zeros(100, np.float32), np.zeros(5 * RATE, np.float32)])
def test_recording_without_speech_has_no_chunk(wave):
    chunks, iterator = cut(wave, 30)
    assert chunks == [] and iterator.skipped == ([(0, len(wave) / RATE)] if len(wave) else [])


def test_knock_is_no_speech_unless_it_is_next_to_some():
    chunks, iterator = cut(recording([4, 0.03, 4, 0.03, 0.5, 2, 0.5, 0.03, 4]), 30)
    assert len(chunks) == 1 and chunks[0].end - chunks[0].start == pytest.approx(4.06, abs=0.1)
    assert len(iterator.skipped) == 2


def test_hours_are_cut_in_bounded_memory():
    minute = recording([3, 9, 1, 14, 0.5, 12, 0.4, 16, 4.1])

    def peak(minutes):
        tracemalloc.start()
        chunks = cut_at_silences((minute for _ in range(minutes)), RATE, 20, detector=loud)
        assert sum(len(chunk.array) for chunk in chunks) > 0.8 * minutes * len(minute)
        assert chunks.seconds == 60 * minutes
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    assert peak(8) < 1.2 * peak(2)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"pause_seconds": 0}, "pause_seconds is 0; it must be above 0"),
        ({"pause_seconds": 3}, "pause_seconds is 3; .* at most skip_seconds, 2.0"),
        ({"padding_seconds": 0.1}, "padding_seconds is 0.1; it must be from half of pause_seconds, 0.15, to"),
        ({"padding_seconds": 1.1}, "padding_seconds is 1.1; .* half of skip_seconds, 1.0"),
        ({"max_seconds": 3.9}, "max_seconds is 3.9; it must be at least 1 and twice skip_seconds, 4.0"),
        ({"max_seconds": float("nan")}, "max_seconds is nan"),
        ({"threshold": 1}, "threshold is 1; a probability must be"),
        ({"rate": 16}, "sampling rate 16; it must be a number of Hz"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        cut_at_silences([], **{"rate": RATE, "max_seconds": 30, "detector": loud, **options})


@pytest.mark.parametrize("block", [np.zeros((2, 100)), np.zeros(100, np.int16)])
def test_blocks_that_no_stream_gives_are_refused(block):
    for chunks in (cut_at_silences([block], RATE, 30, detector=loud), overlapping_windows([block], RATE, 30, 5)):
        with pytest.raises(ValueError, match=r"give float arrays of shape \(samples,\), as stream_audio does"):
            list(chunks)


def test_without_silero_vad_it_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.startswith("silero_vad"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match="pip install silero-vad"):
        cut_at_silences([], RATE, 30)


# Real speech


@pytest.fixture(scope="module")
def utterances(tmp_path_factory):
    """Three sentences by whatever synthesizer there is, 16 kHz."""
    program = next((found for found in map(shutil.which, ("flite", "espeak-ng")) if found), None)
    if program is None:
        pytest.skip("neither flite nor espeak-ng is installed: no speech to find")
    file = tmp_path_factory.mktemp("speech") / "speech.wav"
    waves = []
    for text in ("Please wake me at seven tomorrow.", "What is the weather like in Dublin?", "Yes, turn it off."):
        command = ["-t", text, "-o", file] if program.endswith("flite") else ["-w", file, text]
        subprocess.run([program, *command], check=True, capture_output=True)
        waves.append(load_audio(file, RATE))
    return waves


@pytest.mark.parametrize("gain", [1.0, 0.01])
def test_sentences_are_found_between_long_silences(utterances, gain):
    pytest.importorskip("silero_vad")
    silence = np.zeros(3 * RATE, np.float32)
    wave = gain * np.concatenate([part for utterance in utterances for part in (silence, utterance)] + [silence])
    wave += 1e-5 * noise(len(wave) / RATE)
    chunks = cut_at_silences(in_blocks(wave), RATE, 30)
    found = [(chunk.start, chunk.end) for chunk in chunks]
    assert len(found) == 3 and len(chunks.skipped) == 4
    position = 0.0
    for utterance, (start, end) in zip(utterances, found, strict=True):
        position += 3
        loud_samples = np.flatnonzero(np.abs(utterance) > 0.05 * np.abs(utterance).max()) / RATE
        assert start < position + loud_samples[0] and position + loud_samples[-1] < end
        position += len(utterance) / RATE


def test_noise_is_not_speech():
    pytest.importorskip("silero_vad")
    chunks = cut_at_silences(in_blocks(noise(10)), RATE, 30)
    assert list(chunks) == [] and chunks.skipped == [(0, 10)]


def test_the_detector_leaves_the_threads_of_torch_alone(monkeypatch):
    pytest.importorskip("silero_vad")
    for module in [name for name in sys.modules if name.startswith("silero_vad")]:
        monkeypatch.delitem(sys.modules, module)  # it is its import that sets them
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        SileroDetector()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_the_detector_hears_a_stream_as_it_hears_the_whole(utterances):
    silero_vad = pytest.importorskip("silero_vad")
    wave = utterances[0][: len(utterances[0]) // 512 * 512]
    detector = SileroDetector()
    detector._peak = 1.0  # so that nothing is amplified
    ours = [detector(frame) for frame in wave.reshape(-1, 512)]
    theirs = silero_vad.load_silero_vad().audio_forward(torch.from_numpy(wave)[None], RATE)[0]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


# Windows


@pytest.mark.parametrize("samples", [0, 1, 999, 1000, 1001, 1400, 1600, 1601, 5000, 12_345])
@pytest.mark.parametrize("length, stride", [(1.0, 0.2), (1.0, 0.0), (1.0, 0.4), (0.3, 0.1)])
@pytest.mark.parametrize("size", [7, 1000, 100_000])
def test_windows_are_those_of_transformers(samples, length, stride, size):
    wave = noise(samples / 1000, 1000)

    def extract(chunk, **_):
        return {"input_values": chunk[None]}

    extract.sampling_rate = 1000  # all that chunk_iter asks of a feature extractor
    theirs = chunk_iter(wave, extract, round(length * 1000), round(stride * 1000), round(stride * 1000))
    ours = list(overlapping_windows(in_blocks(wave, size), 1000, length, stride))
    assert all(isinstance(window, AudioChunk) for window in ours)
    for window, expected in zip(ours, theirs, strict=True):
        assert np.array_equal(window.array, expected["input_values"][0])
        assert np.array_equal(window.array, wave[round(window.start * 1000) : round(window.end * 1000)])


@pytest.mark.parametrize("length, stride", [(1, 0.5), (1, -0.1), (0, 0), (float("inf"), 1), (1, float("nan"))])
def test_windows_that_do_not_advance_are_refused(length, stride):
    with pytest.raises(ValueError, match="stride_seconds is .*less than half of length_seconds"):
        overlapping_windows([], RATE, length, stride)


# Joining


@pytest.mark.parametrize(
    "texts, expected",
    [
        ([], ""),
        ([""], ""),
        (["", "  ", ""], ""),
        (["one two"], "one two"),
        (["", "one two", ""], "one two"),
        (["one two three", "two three four"], "one two three four"),
        (["one two three", "one two three"], "one two three"),
        (["one two", "three four"], "one two three four"),
        (["he said no no no", "no no no and left"], "he said no no no and left"),
        (["he said no", "", "no and left"], "he said no no and left"),  # a silent window is between the two
        (["She said: Hello, there.", "hello there, my friend"], "She said: Hello, there, my friend"),
        (["it is the quick brow", "rown fox and"], "it is the quick brow rown fox and"),  # no word in common
        (["over the quick brow", "the quick brown fox jumps"], "over the quick brown fox jumps"),
        (["see the quick brown fox", "sick brown fox jumps over"], "see the quick brown fox jumps over"),
        (["a b c d e f garbage", "trash c d e f g h"], "a b c d e f g h"),
        (["the cat sat on a", "mat and the dog slept"], "the cat sat on a mat and the dog slept"),
        (["we met in the house", "and the dog barked"], "we met in the house and the dog barked"),
        (["one two three four", "two three", "three four five"], "one two three four five"),
        (["a b c d", "c d", "d e f"], "a b c d e f"),
        (["one -- two, three", "two - three four"], "one -- two, three four"),
        (["今日は天気がいい。", "天気がいい。散歩に"], "今日は天気がいい。散歩に"),
        (["今日は", "散歩に"], "今日は散歩に"),
        (["Größe ist STRASSE drei", "straße drei vier"], "Größe ist STRASSE drei vier"),
        (["l'été c'est l’été", "C’est l'été ici"], "l'été c'est l'été ici"),
    ],
)
def test_transcripts_are_joined(texts, expected):
    assert join_transcripts(texts) == expected
    assert join_transcripts(iter(texts)) == expected


WORDS = st.lists(st.integers(0, 400).map(lambda number: f"w{number:03}x"[::-1]), min_size=30, max_size=90)


@PROPERTY
@given(WORDS.map(lambda words: [f"{word}{index}" for index, word in enumerate(words)]), st.data())
def test_words_that_are_cut_in_two_are_mended(words, data):
    """Each window has six words in common with the next, and its outermost words are misheard, missing or halved."""
    texts, length = [], 15
    starts = range(0, len(words), length - 6)
    for start in starts:
        window = words[start : start + length]
        is_last = start + length >= len(words)
        if start:
            window[:1] = data.draw(st.sampled_from([[window[0]], [], ["hm"], [window[0][2:]], ["uh", window[0][3:]]]))
        if not is_last:
            window[-1:] = data.draw(st.sampled_from([[window[-1]], [], ["hm"], [window[-1][:-2]], ["the", "end"]]))
        texts.append(" ".join(window))
        if is_last:
            break
    assert join_transcripts(texts).split() == words


@PROPERTY
@given(st.lists(st.sampled_from("yes no maybe".split()), min_size=1, max_size=3), st.integers(1, 6), st.integers(0, 5))
def test_phrase_that_is_repeated_is_kept_as_often_as_both_windows_have_it(phrase, times, others):
    before, after = [[f"{side}{index}" for index in range(others)] for side in ("before", "after")]
    texts = [" ".join(before + times * phrase), " ".join(times * phrase + after)]
    assert join_transcripts(texts).split() == before + times * phrase + after


def test_expected_overlap_tells_how_often_a_phrase_was_said():
    window = " ".join(8 * ["kids are talking by the door"])
    assert join_transcripts([window, window]) == window
    joined = join_transcripts([window, window], overlap=0.25)
    assert joined == " ".join(14 * ["kids are talking by the door"])


@PROPERTY
@given(st.integers(1, 30), st.integers(1, 30), st.floats(0, 0.9))
def test_unexpected_overlap_is_found_where_words_tell(common, others, overlap):
    words = [3 * chr(ord("a") + index % 26) + 3 * str(index // 26) for index in range(common + 2 * others)]
    texts = [" ".join(words[: common + others]), " ".join(words[others:])]
    assert join_transcripts(texts, overlap).split() == words


@pytest.mark.parametrize("overlap", [-0.1, 1, 5.0, float("nan")])
def test_impossible_overlap_is_refused(overlap):
    with pytest.raises(ValueError, match="overlap is .*; it must be at least 0 and below 1"):
        join_transcripts(["one", "two"], overlap)


@PROPERTY
@given(st.permutations(range(40)), st.lists(st.integers(1, 6), min_size=1, max_size=8))
def test_texts_without_a_common_word_are_put_side_by_side(numbers, sizes):
    words, texts = [f"{n * 7919:06}" for n in numbers], []
    words = ["".join("abcdefghij"[int(digit)] for digit in word) for word in words]
    for size in sizes:
        texts.append(" ".join(words[:size]))
        words = words[size:]
    assert join_transcripts(texts) == " ".join(filter(None, texts))
