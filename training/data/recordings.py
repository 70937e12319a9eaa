"""Where a recording's bytes are, when it is no file of its own: small, hashable, picklable, read when needed."""

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import soundfile


# How much of a segment may be missing at the end of its file, in seconds: transcripts round the times they give.
SEGMENT_TOLERANCE = 0.1


class Recording(Protocol):
    """Stands for a recording that is no file of its own.

    Attributes:
        name (`str`): what to call it in a message; unique in its corpus.
        size (`float`): in which recordings of like length are alike, such as its bytes.
    """

    name: str
    size: float

    def read(self) -> object:
        """What [`load_audio`] takes: bytes, or a dict with `array` and `sampling_rate`."""


def open_audio(audio):
    """What [`load_audio`] takes, for a path or a [`Recording`]."""
    return audio if isinstance(audio, str) else audio.read()


def audio_name(audio) -> str:
    """The path of a recording, or its name."""
    return audio if isinstance(audio, str) else audio.name


def audio_size(audio) -> float:
    """Recordings of one corpus with like sizes are of like length."""
    return Path(audio).stat().st_size if isinstance(audio, str) else audio.size


@dataclass(frozen=True)
class TarMember:
    """A file inside an uncompressed tar, found by its offset.

    Args:
        archive (`str`): path of the tar.
        member (`str`): name of the file inside.
        offset, size (`int`): where its content starts, and its length, in bytes.
    """

    archive: str
    member: str
    offset: int
    size: int

    @property
    def name(self) -> str:
        return f"{self.archive}/{self.member}"

    def read(self) -> bytes:
        with open(self.archive, "rb") as stream:
            stream.seek(self.offset)
            return stream.read(self.size)


@dataclass(frozen=True)
class TableCell:
    """The audio column of one row of a `datasets.Dataset` whose audio is not decoded.

    Args:
        name (`str`): unique; two cells of one name are the same recording.
        table (`datasets.Dataset`): memory-mapped, so that a copy in a worker costs nothing.
        row (`int`): index of the row.
        column (`str`): of the audio.
    """

    name: str
    table: object = field(compare=False, repr=False)
    row: int = field(compare=False)
    column: str = field(compare=False)

    @property
    def size(self) -> float:
        return len(self.table[self.row][self.column]["bytes"] or b"")

    def read(self) -> dict:
        return self.table[self.row][self.column]


@dataclass(frozen=True)
class EncodedAudio:
    """The bytes of an audio file themselves: what a stream gives, once.

    Args:
        name (`str`): what the corpus calls it, which may be nothing.
        content (`bytes`): of an audio file.
    """

    name: str
    content: bytes = field(repr=False)  # compared, too: names need not be unique

    @property
    def size(self) -> float:
        return len(self.content)

    def read(self) -> bytes:
        return self.content


@dataclass(frozen=True)
class Segment:
    """A stretch of a longer recording; of a file only that stretch is read.

    It may reach up to 0.1 s past the end of the recording, and is shorter then.

    Args:
        audio (`str` or [`Recording`]): the whole.
        start, end (`float`): seconds from its start.
    """

    audio: str | Recording
    start: float
    end: float

    @property
    def name(self) -> str:
        return f"{audio_name(self.audio)} [{self.start:.10g}-{self.end:.10g} s]"

    @property
    def size(self) -> float:
        return self.end - self.start

    def read(self) -> dict:
        """Raises `FileNotFoundError` if the recording is not there, `ValueError` if it cannot be read or ends too early."""
        try:
            with open_file(self.audio) as file:
                rate = file.samplerate
                file.seek(min(round(self.start * rate), file.frames))
                wave = file.read(round((self.end - self.start) * rate), dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise ValueError(f"audio {audio_name(self.audio)!r} cannot be read: {error.error_string}") from error
        if not len(wave):
            raise ValueError(f"audio {audio_name(self.audio)!r} ends before {self.start:g} s.")
        there = len(wave) / rate
        if self.end - self.start - there > SEGMENT_TOLERANCE:
            raise ValueError(
                f"audio {audio_name(self.audio)!r} ends at {self.start + there:g} s, before {self.end:g} s."
            )
        return {"array": wave.T, "sampling_rate": rate}


def open_file(audio) -> soundfile.SoundFile:
    """A path, or a [`Recording`] whose bytes are those of an audio file, opened but not yet decoded.

    Raises:
        FileNotFoundError: if it is not there.
        soundfile.LibsndfileError: if it is no audio file.
    """
    source = open_audio(audio)
    if isinstance(source, dict):
        source = source["bytes"] if source.get("bytes") is not None else source["path"]
    if isinstance(source, str) and not Path(source).is_file():
        raise FileNotFoundError(f"audio {source!r} is not there.")
    return soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else source)
