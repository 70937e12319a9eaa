"""Every form that a recording may come in, and a clear word about what is no recording."""

import http.server
import io
import os
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from speechverse.processing import audio_speechverse as module
from speechverse.processing.audio_speechverse import load_audio


RATE = 16_000
FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "vorbis.ogg": ("OGG", "VORBIS"),
    "opus.ogg": ("OGG", "OPUS"),
}


def sine(frequency=440.0, seconds=1.0, rate=RATE):
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def encoded(suffix, wave=None, rate=RATE) -> bytes:
    buffer = io.BytesIO()
    file_format, subtype = FORMATS[suffix]
    soundfile.write(buffer, sine() if wave is None else wave, rate, format=file_format, subtype=subtype)
    return buffer.getvalue()


def written(folder, suffix="wav", wave=None, rate=RATE):
    file = folder / f"sine.{suffix}"
    file.write_bytes(encoded(suffix, wave, rate))
    return file


def peak_frequency(wave, rate=RATE) -> float:
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    return spectrum.argmax() * rate / len(wave)


def middle(wave):
    """Without the edges, where a codec or a resampling filter swings in."""
    return wave[1600:-1600]


def assert_is_sine(wave, expected, tolerance=2e-3):
    assert wave.dtype == np.float32 and wave.shape == expected.shape
    np.testing.assert_allclose(middle(wave), middle(expected), atol=tolerance)


# Files


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize(
    "source_of",
    [
        str,
        lambda file: file,
        lambda file: file.read_bytes(),
        lambda file: bytearray(file.read_bytes()),
        lambda file: {"bytes": file.read_bytes(), "path": None},
        lambda file: {"bytes": None, "path": str(file)},
        lambda file: {"bytes": file.read_bytes(), "path": "gone.wav"},
    ],
    ids=["str", "path", "bytes", "bytearray", "dict-bytes", "dict-path", "dict-both"],
)
def test_file_is_read_in_every_form(suffix, source_of, tmp_path):
    wave = load_audio(source_of(written(tmp_path, suffix)), RATE)
    assert wave.dtype == np.float32 and wave.ndim == 1
    assert len(wave) == pytest.approx(RATE, abs=1200 if suffix == "mp3" else 0)  # an mp3 ends on a whole frame
    assert peak_frequency(wave) == pytest.approx(440, abs=2)
    assert np.abs(middle(wave)).max() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_lossless_file_gives_its_samples(suffix, tmp_path):
    assert_is_sine(load_audio(written(tmp_path, suffix), RATE), sine(), tolerance=2 / 2**15)


def test_file_is_resampled_from_its_own_rate_whatever_the_caller_says(tmp_path):
    file = written(tmp_path, wave=sine(rate=8000), rate=8000)
    assert_is_sine(load_audio(file, RATE, sampling_rate=44_100), sine())


@pytest.fixture
def server(tmp_path):
    """Address of a server of `tmp_path`."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=tmp_path)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()


@pytest.mark.parametrize("suffix", ["flac", "opus.ogg"])
def test_url_is_fetched(suffix, server, tmp_path):
    file = written(tmp_path, suffix)
    assert np.array_equal(load_audio(f"{server}/{file.name}", RATE), load_audio(file, RATE))
    assert np.array_equal(load_audio({"path": f"{server}/{file.name}"}, RATE), load_audio(file, RATE))


def test_missing_url_names_the_address_and_the_status(server):
    with pytest.raises(FileNotFoundError, match=rf"{server}/gone\.wav' could not be fetched: .*404"):
        load_audio(f"{server}/gone.wav", RATE)


def test_page_behind_a_url_is_not_audio(server, tmp_path):
    (tmp_path / "page.html").write_text("<html>Please log in.</html>")
    with pytest.raises(ValueError, match=r"page\.html' is not audio"):
        load_audio(f"{server}/page.html", RATE)


# Arrays


def as_integers(dtype):
    half_range = 2.0 ** (8 * np.dtype(dtype).itemsize - 1)
    centre = half_range if np.dtype(dtype).kind == "u" else 0
    return np.round(sine() * half_range + centre).astype(dtype)


@pytest.mark.parametrize(
    "array",
    [
        sine(),
        sine().astype(np.float32),
        sine().astype(np.float16),
        sine().tolist(),
        torch.from_numpy(sine()),
        torch.from_numpy(sine()).bfloat16(),
        torch.from_numpy(sine()).requires_grad_(),
        torch.from_numpy(as_integers(np.int16)),
        as_integers(np.int16),
        as_integers(np.int32),
        as_integers(np.uint8),
    ],
    ids=lambda array: f"{type(array).__name__}-{getattr(array, 'dtype', 'float')}",
)
def test_array_of_any_kind_comes_at_full_scale(array):
    expected = sine().astype(np.float32)
    assert_is_sine(load_audio(array, RATE, sampling_rate=RATE), expected, tolerance=5e-3)
    assert_is_sine(load_audio({"array": array, "sampling_rate": RATE}, RATE), expected, tolerance=5e-3)


def test_rate_of_a_dict_goes_before_the_callers():
    array = sine(rate=8000)
    assert len(load_audio({"array": array, "sampling_rate": 8000}, RATE, sampling_rate=RATE)) == RATE
    assert len(load_audio({"array": array}, RATE, sampling_rate=8000)) == RATE


def test_torchcodec_decoder_as_datasets_hands_it_out():
    stereo = torch.from_numpy(np.stack([sine(rate=8000), sine(rate=8000)]))
    decoder = SimpleNamespace(get_all_samples=lambda: SimpleNamespace(data=stereo, sample_rate=8000))
    assert_is_sine(load_audio(decoder, RATE), sine())


@pytest.mark.parametrize("channels_first", [True, False])
def test_opposite_channels_cancel(channels_first):
    stereo = np.stack([sine(), -sine()], axis=0 if channels_first else 1)
    assert np.array_equal(load_audio(stereo, RATE, RATE), np.zeros(RATE, np.float32))
    assert np.array_equal(load_audio((stereo * 2**15).astype(np.int16), RATE, RATE), np.zeros(RATE, np.float32))


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_channels_of_a_file_are_averaged(suffix, tmp_path):
    stereo = np.stack([sine(440), sine(1000)], axis=1)
    assert_is_sine(load_audio(written(tmp_path, suffix, stereo), RATE), (sine(440) + sine(1000)) / 2)


@pytest.mark.parametrize("shape", [(RATE, 1), (1, RATE), (RATE, 6), (6, RATE)])
def test_any_number_of_channels_leaves_the_length(shape):
    assert np.array_equal(load_audio(np.full(shape, 0.25), RATE, RATE), np.full(RATE, 0.25, np.float32))


# Resampling


@pytest.mark.parametrize("rate", [8000, 11_025, 44_100, 48_000])
def test_resampled_sine_is_the_sine_at_the_new_rate(rate):
    wave = load_audio(sine(rate=rate), RATE, rate)
    assert_is_sine(wave, sine())
    assert np.corrcoef(wave, sine())[0, 1] > 0.999


@pytest.mark.parametrize("rate, samples", [(8000, 8001), (11_025, 5000), (44_100, 44_107), (44_100, 9999)])
def test_resampled_length_is_rounded(rate, samples):
    assert len(load_audio(np.zeros(samples), RATE, rate)) == round(samples * RATE / rate)


def test_what_the_new_rate_cannot_carry_is_filtered_out():
    """12 kHz would fold down to 4 kHz."""
    assert np.abs(middle(load_audio(sine(12_000, rate=48_000), RATE, 48_000))).max() < 1e-3


def test_resampling_without_soxr_says_what_to_install(monkeypatch):
    monkeypatch.setattr(module, "soxr", None)
    assert len(load_audio(sine(), RATE, RATE)) == RATE
    with pytest.raises(ImportError, match="8000 Hz.*16000 Hz.*pip install soxr"):
        load_audio(sine(rate=8000), RATE, 8000)


# Bad recordings


@pytest.mark.parametrize("missing", ["no/such/call.wav", {"path": "no/such/call.wav"}])
def test_missing_file_is_named(missing):
    with pytest.raises(FileNotFoundError, match="'no/such/call.wav' is not there"):
        load_audio(missing, RATE)


def test_folder_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not there: give the path of a file"):
        load_audio(tmp_path, RATE)


@pytest.mark.parametrize("content", [b"Dear Sir or Madam,\n", bytes(range(256)) * 20, b""])
def test_file_that_is_not_audio_is_named(content, tmp_path):
    (tmp_path / "letter.wav").write_bytes(content)
    with pytest.raises(ValueError, match=r"letter\.wav' is not audio that can be read \(wav, flac, mp3, ogg/opus\)"):
        load_audio(tmp_path / "letter.wav", RATE)
    with pytest.raises(ValueError, match="given as bytes is not audio that can be read"):
        load_audio(content, RATE)


def test_file_cut_off_in_its_header_is_refused():
    with pytest.raises(ValueError, match="is not audio"):
        load_audio(encoded("wav")[:30], RATE)


def with_sample(value):
    wave = sine()
    wave[7] = value
    return wave


@pytest.mark.parametrize(
    "array, message",
    [
        (np.zeros(0), "is empty"),
        ([], "is empty"),
        (np.zeros((0, 2)), "is empty"),
        (with_sample(np.nan), "NaN or infinite samples: 1 of 16000"),
        (with_sample(np.inf), "NaN or infinite samples: 1 of 16000"),
        (with_sample(-np.inf), "NaN or infinite samples: 1 of 16000"),
        (np.zeros(160), r"lasts 0\.010 s; at least 0\.1 s"),
        (np.zeros((2, 2, RATE)), "has 3 dimensions"),
        (0.5, "has 0 dimensions"),
        (np.array(["a", "b"]), "neither a path, bytes, nor an array of real numbers"),
        (["yes", "no"], "neither a path, bytes, nor an array of real numbers"),
        (np.zeros(RATE, complex), "neither a path, bytes, nor an array of real numbers"),
        (np.zeros(RATE, bool), "neither a path, bytes, nor an array of real numbers"),
        (None, "NoneType is not audio"),
        ([1000] * RATE, "int64, which has no full scale"),
        ({"sampling_rate": RATE}, "none of the keys array, bytes, path; it has sampling_rate"),
        ({"array": None, "bytes": None, "path": None}, "none of the keys array, bytes, path"),
    ],
)
def test_bad_recording_is_refused(array, message):
    with pytest.raises(ValueError, match=message):
        load_audio(array, RATE, sampling_rate=RATE)


def test_empty_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"sine\.wav' is empty"):
        load_audio(written(tmp_path, wave=np.zeros(0)), RATE)


def test_a_tenth_of_a_second_is_enough():
    assert len(load_audio(np.zeros(1600), RATE, RATE)) == 1600
    with pytest.raises(ValueError, match="at least 0.1 s"):
        load_audio(np.zeros(1599), RATE, RATE)


@pytest.mark.parametrize("rate", [0, 16, -16_000, float("nan"), float("inf"), "16000"])
def test_impossible_rate_is_refused(rate):
    with pytest.raises(ValueError, match=f"sampling rate {rate!r}; it must be a number of Hz, at least 1000"):
        load_audio(sine(), RATE, sampling_rate=rate)
    with pytest.raises(ValueError, match="must be a number of Hz, at least 1000"):
        load_audio({"array": sine(), "sampling_rate": rate}, RATE)


@pytest.mark.parametrize("source", [sine(), sine().tolist(), torch.zeros(RATE), {"array": sine()}])
def test_array_without_a_rate_says_how_to_give_one(source):
    with pytest.raises(ValueError, match="has no rate: pass sampling_rate=, or a dict"):
        load_audio(source, RATE)


def test_the_callers_array_is_left_alone():
    wave = sine().astype(np.float32)
    before = wave.copy()
    load_audio(np.stack([wave, wave]), RATE, 8000)
    load_audio(wave, RATE, RATE)
    assert np.array_equal(wave, before)


def test_relative_path_starts_at_the_working_directory(tmp_path, monkeypatch):
    file = written(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert np.array_equal(load_audio(file.name, RATE), load_audio(os.path.abspath(file), RATE))
