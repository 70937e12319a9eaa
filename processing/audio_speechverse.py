"""Any recording -> a mono float32 waveform at one rate."""

import contextlib
import io
import os
import shutil
import tempfile
import urllib.request
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import soundfile


try:
    import soxr
except ImportError:
    soxr = None

MIN_SECONDS = 0.1  # shorter than any phone: nothing can be said in it
MIN_RATE = 1000  # Hz: less holds no speech, and is more likely a number of kHz
URL_TIMEOUT = 30  # s


def load_audio(source, target_rate: int, sampling_rate: int | None = None) -> np.ndarray:
    """Reads a recording, mixes its channels down and resamples it.

    Args:
        source: a path; an http(s) URL; the bytes of an audio file (wav, flac, mp3, ogg/opus: what libsndfile reads);
            an array or tensor, 1-D, or 2-D with the channels along its shorter side (floats in -1..1, or integers of 8
            to 32 bits at their full scale); a dict with `array` and `sampling_rate`, or with `bytes` or `path`, or a
            torchcodec decoder, as in `datasets`.
        target_rate (`int`): wanted rate, Hz.
        sampling_rate (`int`, *optional*): rate of a bare array, Hz. A file knows its own.

    Returns:
        `np.ndarray` of shape `(samples,)`, float32, finite.

    Raises:
        FileNotFoundError: if the path is not there.
        ValueError: if the source is not audio, is empty, shorter than 0.1 s, holds NaN or infinity, or has no rate.
    """
    name = audio_name(source)
    samples, rate = find_samples(source, name, sampling_rate)
    if rate is None:
        with open_file(samples, name) as file, decoding(name):
            samples, rate = file.read(dtype="float32", always_2d=True), file.samplerate
    check_rates(rate, target_rate, name)
    check_length(len(samples), rate, name)
    wave = to_mono_float(samples, name)
    check_finite(wave, name)
    return wave if rate == target_rate else soxr.resample(wave, rate, target_rate).astype(np.float32, copy=False)


def audio_name(source) -> str:
    """What to call a recording in an error message."""
    if isinstance(source, (str, os.PathLike)):
        return f"audio {str(source)!r}"
    if isinstance(source, Mapping) and source.get("path"):
        return f"audio {str(source['path'])!r}"
    return f"the audio given as {type(source).__name__}"


def find_samples(source, name: str, sampling_rate: int | None):
    """Where the samples of a recording are.

    Returns:
        what `open_file` takes, and `None`; or an array of shape `(samples,)` or `(samples, channels)`, and its rate in Hz.
    """
    if isinstance(source, (str, os.PathLike)):
        if str(source).startswith(("http://", "https://")):
            return _fetch(str(source)), None
        source = os.path.expanduser(source)
        if not os.path.isfile(source):
            raise FileNotFoundError(f"{name} is not there: give the path of a file, a URL, bytes, or an array.")
        return source, None
    if isinstance(source, (bytes, bytearray)):
        return io.BytesIO(source), None
    if isinstance(source, Mapping):
        if source.get("array") is not None:
            return _from_array(source["array"], name, source.get("sampling_rate", sampling_rate))
        if source.get("bytes") is not None:
            return io.BytesIO(source["bytes"]), None
        if source.get("path") is not None:
            return find_samples(source["path"], name, sampling_rate)
        raise ValueError(f"{name} has none of the keys array, bytes, path; it has {', '.join(map(str, source))}.")
    if hasattr(source, "get_all_samples"):  # torchcodec.decoders.AudioDecoder
        samples = source.get_all_samples()
        return _from_array(samples.data, name, samples.sample_rate)
    return _from_array(source, name, sampling_rate)


def _from_array(array, name: str, sampling_rate: int | None):
    if hasattr(array, "detach"):
        array = array.detach().cpu().float().numpy() if array.is_floating_point() else array.detach().cpu().numpy()
    array = np.asarray(array)
    if not np.issubdtype(array.dtype, np.number) or np.iscomplexobj(array):
        raise ValueError(f"{name} is not audio: it is neither a path, bytes, nor an array of real numbers.")
    if array.ndim not in (1, 2):
        raise ValueError(f"{name} has {array.ndim} dimensions; give samples, or samples and channels.")
    if sampling_rate is None:
        raise ValueError(f"{name} has no rate: pass sampling_rate=, or a dict with array and sampling_rate.")
    channels_first = array.ndim == 2 and array.size and array.shape[0] <= array.shape[1]
    return array.T if channels_first else array, sampling_rate


def _fetch(url: str):
    """The file behind a URL, kept on disk, since it may last hours."""
    file = tempfile.TemporaryFile()
    try:
        with urllib.request.urlopen(url, timeout=URL_TIMEOUT) as response:
            shutil.copyfileobj(response, file)
    except OSError as error:  # urllib's own errors are OSErrors
        file.close()
        raise FileNotFoundError(f"audio {url!r} could not be fetched: {error}.") from error
    file.seek(0)
    return file


def open_file(file, name: str) -> soundfile.SoundFile:
    with decoding(name):
        return soundfile.SoundFile(file)


@contextlib.contextmanager
def decoding(name: str):
    """Says which recording could not be read."""
    try:
        yield
    except (soundfile.LibsndfileError, TypeError) as error:
        reason = getattr(error, "error_string", str(error)).rstrip(".")
        raise ValueError(f"{name} is not audio that can be read (wav, flac, mp3, ogg/opus): {reason}.") from error


def check_rates(rate: float, target_rate: int, name: str):
    if not isinstance(rate, (int, float, np.number)) or not MIN_RATE <= rate < float("inf"):
        raise ValueError(f"{name} has the sampling rate {rate!r}; it must be a number of Hz, at least {MIN_RATE}.")
    if rate != target_rate and soxr is None:
        raise ImportError(
            f"{name} is at {rate} Hz and the model wants {target_rate} Hz: `pip install soxr` resamples it."
        )


def check_length(samples: int, rate: float, name: str):
    if not samples:
        raise ValueError(f"{name} is empty: it holds no samples.")
    if samples < MIN_SECONDS * rate:
        raise ValueError(f"{name} lasts {samples / rate:.3f} s; at least {MIN_SECONDS} s is needed.")


def check_finite(wave: np.ndarray, name: str):
    if not np.isfinite(wave).all():
        raise ValueError(
            f"{name} holds NaN or infinite samples: {np.count_nonzero(~np.isfinite(wave))} of {wave.size}."
        )


def to_mono_float(wave: np.ndarray, name: str) -> np.ndarray:
    """`(samples,)` or `(samples, channels)`, floats or integers, as float32 of shape `(samples,)`."""
    if np.issubdtype(wave.dtype, np.integer):
        if wave.dtype.itemsize > 4:
            raise ValueError(f"{name} holds {wave.dtype}, which has no full scale; give int16, int32 or floats.")
        half_range = 2.0 ** (8 * wave.dtype.itemsize - 1)  # unsigned PCM is centred on it
        wave = (wave - (half_range if wave.dtype.kind == "u" else 0.0)) / half_range
    if wave.ndim == 2:
        wave = wave.mean(axis=1)
    return wave.astype(np.float32, copy=False)


def resample_blocks(blocks: Iterable[np.ndarray], rate: float, target_rate: int) -> Iterator[np.ndarray]:
    """Consecutive blocks of shape `(samples,)` at another rate: joined, what resampling them in one piece would give."""
    if rate == target_rate:
        yield from blocks
        return
    resampler = soxr.ResampleStream(rate, target_rate, num_channels=1, dtype="float32")
    for block in blocks:
        if len(resampled := resampler.resample_chunk(block)):
            yield resampled
    if len(resampled := resampler.resample_chunk(np.zeros(0, np.float32), last=True)):
        yield resampled
