"""Listening to recordings before training: which can be used, and how long they are. Each is decoded once."""

import functools
import io
import math
import multiprocessing
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from tqdm.auto import tqdm

from ...processing.audio_speechverse import MIN_RATE
from .containers import find_damage
from .recording_memory import RecordingMemory, file_stamp
from .recordings import Segment, open_audio


BLOCK = 1 << 20  # frames decoded at a time: hours of audio need no more memory than a minute
CHUNK = 64  # recordings that a worker takes at a time
SAVE_EVERY = 4096  # recordings heard, at least, before they are written down
# How much shorter than announced a file may decode, in seconds: an eighth of a projected frame. Encoder delays that mp3
# files without a LAME tag do not tell of stay below it at 48 kHz.
LENGTH_TOLERANCE = 0.01


class RecordingFacts(NamedTuple):
    """What listening to a recording tells.

    Args:
        fault (`str`, *optional*): why nobody can use it; what stands before a colon is the kind.
        seconds (`float`, *optional*): its length.
        peak (`float`, *optional*): half of the span between its lowest and its highest sample, mixed down to mono; 1 is
            full scale. A constant offset is no sound.
    """

    fault: str | None
    seconds: float | None = None
    peak: float | None = None


def inspect_recording(audio) -> RecordingFacts:
    """Decodes a recording from start to end.

    Args:
        audio (`str` or [`Recording`]): the recording.
    """
    try:
        if isinstance(audio, Segment) and (damage := _damage_of_whole(audio.audio)):
            return RecordingFacts(damage)
        content = open_audio(audio)
        if isinstance(content, dict) and content.get("array") is not None:
            return _inspect_array(np.asarray(content["array"]), content["sampling_rate"])
        if isinstance(content, dict):
            content = content["path"] if content.get("bytes") is None else content["bytes"]
        if content is None:
            return RecordingFacts("not there")
        with open(content, "rb") if isinstance(content, str) else io.BytesIO(content) as stream:
            return _inspect_file(stream)
    except FileNotFoundError:
        return RecordingFacts("not there")
    except soundfile.LibsndfileError as error:  # not its str(), which tells where in memory the bytes were
        return RecordingFacts(f"unreadable: {error.error_string or 'libsndfile knows no reason'}")
    except (OSError, ValueError) as error:
        return RecordingFacts(f"unreadable: {error}")


def _damage_of_whole(audio) -> str | None:
    """What the container tells of the file that a segment is cut from; it is looked at once for all its segments."""
    if isinstance(audio, Segment):
        return _damage_of_whole(audio.audio)
    if (stamp := file_stamp(audio)) is not None:
        return _known_damage(audio, *stamp)
    return _find_damage_of(audio)


@functools.lru_cache(maxsize=1024)
def _known_damage(audio, size: int, time: int) -> str | None:
    return _find_damage_of(audio)


def _find_damage_of(audio) -> str | None:
    content = open_audio(audio)
    if isinstance(content, dict):
        content = content.get("path") if content.get("bytes") is None else content["bytes"]
    if content is None:
        return None
    with open(content, "rb") if isinstance(content, str) else io.BytesIO(content) as stream:
        return find_damage(stream)


def _inspect_file(stream) -> RecordingFacts:
    if not stream.read(1):
        return RecordingFacts("empty: the file holds no bytes")
    stream.seek(0)
    if damage := find_damage(stream):
        return RecordingFacts(damage)
    stream.seek(0)
    with soundfile.SoundFile(stream) as file:
        if file.samplerate < MIN_RATE:
            return _wrong_rate(file.samplerate)
        frames, low, high = 0, math.inf, -math.inf
        while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
            mono = block.mean(axis=1) if block.shape[1] > 1 else block[:, 0]
            if not np.isfinite(mono).all():
                return _not_finite()
            frames, low, high = frames + len(mono), min(low, float(mono.min())), max(high, float(mono.max()))
        missing = (file.frames - frames) / file.samplerate
        if missing > LENGTH_TOLERANCE:
            announced = file.frames / file.samplerate
            return RecordingFacts(f"truncated: {announced - missing:.3f} of {announced:.3f} s can be decoded")
        return _facts(frames, file.samplerate, low, high)


def _inspect_array(wave: np.ndarray, rate: float) -> RecordingFacts:
    if rate < MIN_RATE:
        return _wrong_rate(rate)
    mono = wave.mean(axis=int(np.argmin(wave.shape))) if wave.ndim == 2 and wave.size else wave.reshape(-1)
    if not np.isfinite(mono).all():
        return _not_finite()
    return _facts(len(mono), rate, float(mono.min(initial=math.inf)), float(mono.max(initial=-math.inf)))


def _facts(frames: int, rate: float, low: float, high: float) -> RecordingFacts:
    if not frames:
        return RecordingFacts("empty")
    return RecordingFacts(None, frames / rate, (high - low) / 2)


def _wrong_rate(rate: float) -> RecordingFacts:
    return RecordingFacts(f"wrong rate: {rate:g} Hz; at least {MIN_RATE} Hz is needed")


def _not_finite() -> RecordingFacts:
    return RecordingFacts("not finite: NaN or infinite samples")


class FactsCache(RecordingMemory):
    """Remembers in a JSON file what was heard in recordings that have not changed since, by size and time.

    Args:
        file (`str` or `Path`, *optional*): the file; `None` remembers nothing.
    """

    version = f"2, libsndfile {soundfile.__libsndfile_version__}"  # goes up when a recording is judged otherwise

    def __init__(self, file: str | Path | None):
        super().__init__(file, self.version)

    def get(self, audio) -> RecordingFacts | None:
        values = super().get(audio)
        return None if values is None else RecordingFacts(*values)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def inspect_recordings(
    audios: list, workers: int | None = None, cache: FactsCache | None = None, show_progress: bool = True
) -> list[RecordingFacts]:
    """Listens to recordings, on all cores.

    Args:
        audios (`list`): paths or [`Recording`]s.
        workers (`int`, *optional*): processes; by default one for each core that may be used.
        cache ([`FactsCache`], *optional*): what is known already.
        show_progress (`bool`, *optional*, defaults to `True`): with a bar.

    Returns:
        the facts, in the order of `audios`.
    """
    cache = cache or FactsCache(None)
    facts = [cache.get(audio) for audio in audios]
    new = [index for index, found in enumerate(facts) if found is None]
    workers = min(workers or available_cores(), math.ceil(len(new) / CHUNK))
    known = len(audios) - len(new)
    heard = unsaved = 0
    with tqdm(
        total=len(audios), initial=known, desc="Checking recordings", unit="clip", disable=not show_progress
    ) as progress:
        try:
            for chunk in _hear_in_chunks([audios[index] for index in new], workers):
                for index, found in zip(new[heard : heard + len(chunk)], chunk, strict=True):
                    facts[index] = found
                    cache.put(audios[index], found)
                heard, unsaved = heard + len(chunk), unsaved + len(chunk)
                progress.update(len(chunk))
                if unsaved >= max(SAVE_EVERY, heard // 10):  # the whole file is written: ever less often
                    cache.save()
                    unsaved = 0
        finally:  # an interrupted check goes on from here
            if unsaved:
                cache.save()
    return facts


def _hear_in_chunks(audios: list, workers: int) -> Iterator[list[RecordingFacts]]:
    if workers <= 1:
        yield from ([inspect_recording(audio)] for audio in audios)
        return
    starts = range(0, len(audios), CHUNK)
    done = 0
    pool = _start_pool(workers, audios)
    try:
        for future in [pool.submit(_hear_chunk, start) for start in starts]:
            yield future.result()
            done += 1
    except BrokenProcessPool:  # a recording took a worker down: find out which
        for start in starts[done:]:
            yield _hear_apart(audios[start : start + CHUNK])
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt need not wait for the rest


def _hear_apart(audios: list) -> list[RecordingFacts]:
    """In a process of its own; where that dies, recording by recording."""
    with _start_pool(1, audios) as pool:
        try:
            return pool.submit(_hear_chunk, 0).result()
        except BrokenProcessPool:
            if len(audios) == 1:
                return [RecordingFacts("unreadable: its decoder crashed")]
    return [facts for audio in audios for facts in _hear_apart([audio])]


_audios: list = []  # a worker's own: all recordings, so that a chunk is sent as a number


def _start_pool(workers: int, audios: list) -> ProcessPoolExecutor:
    # A forked worker shares the recordings and the modules of its parent; on macOS forking is not safe.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_set_audios, initargs=(audios,))


def _set_audios(audios: list) -> None:
    global _audios
    _audios = audios


def _hear_chunk(start: int) -> list[RecordingFacts]:
    return [inspect_recording(audio) for audio in _audios[start : start + CHUNK]]
