"""What a recording is known by, whatever it is called and wherever it lies: the SHA-256 of its bytes."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from .inspection import available_cores
from .recording_memory import RecordingMemory
from .recordings import Recording, Segment, audio_name, open_audio


VERSION = "1"  # goes up when a recording gets another digest
BLOCK = 1 << 20  # bytes read at a time


def digest_recordings(audios: list, memory: str | Path | None = None, show_progress: bool = True) -> list[str]:
    """The SHA-256 of each recording's bytes, in hex.

    A stretch of a longer recording is known by the whole one and its times; an array by its samples and their rate.

    Args:
        audios (`list`): paths or [`Recording`]s.
        memory (`str` or `Path`, *optional*): a JSON file that remembers the digests of files that do not change.
        show_progress (`bool`, *optional*, defaults to `True`): with a bar.

    Raises:
        FileNotFoundError: if a recording is not there.
    """
    memory = RecordingMemory(memory, VERSION)
    wholes = dict.fromkeys(_whole(audio) for audio in audios)
    digests = {audio: known[0] for audio in wholes if (known := memory.get(audio))}
    new = [audio for audio in wholes if audio not in digests]
    show_progress = show_progress and bool(new)
    with (
        ThreadPoolExecutor(available_cores()) as pool,  # threads: hashing and reading leave the interpreter to others
        tqdm(total=len(new), desc="Hashing recordings", unit="clip", disable=not show_progress) as progress,
    ):
        for audio, digest in zip(new, pool.map(_digest, new), strict=True):
            digests[audio] = digest
            memory.put(audio, [digest])
            progress.update()
    if new:
        memory.save()
    return [_digest_of_stretch(audio, digests) for audio in audios]


def _whole(audio: str | Recording) -> str | Recording:
    return _whole(audio.audio) if isinstance(audio, Segment) else audio


def _digest_of_stretch(audio: str | Recording, digests: dict) -> str:
    if not isinstance(audio, Segment):
        return digests[audio]
    whole = _digest_of_stretch(audio.audio, digests)
    return hashlib.sha256(f"{whole} {audio.start!r} {audio.end!r}".encode()).hexdigest()


def _digest(audio: str | Recording) -> str:
    content = open_audio(audio)
    if isinstance(content, dict) and content.get("array") is not None:
        samples = np.ascontiguousarray(content["array"])
        head = f"{samples.dtype.str} {samples.shape} {content['sampling_rate']} "
        return hashlib.sha256(head.encode() + samples.tobytes()).hexdigest()
    if isinstance(content, dict):
        content = content["path"] if content.get("bytes") is None else content["bytes"]
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    if content is None or not Path(content).is_file():
        raise FileNotFoundError(f"audio {audio_name(audio)!r} is not there.")
    digest = hashlib.sha256()
    with open(content, "rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
