"""Recordings, small enough to stand in a page."""

import base64
import io
import os
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

import soundfile

from speechverse.processing.audio_speechverse import load_audio
from speechverse.training.data.recordings import Segment


RATE = 16_000  # Hz
LONGEST = 60  # s of a recording that a page holds
# Every phone plays MP3; libsndfile writes it since 1.1. Each with its MIME type.
FORMATS = {"MP3": "audio/mpeg", "FLAC": "audio/flac"}


@dataclass(frozen=True)
class Player:
    """A recording as a data URI, or why there is none.

    Args:
        uri (`str`, *optional*): `data:audio/...`.
        note (`str`): why it is missing, or that it was cut; may be empty.
    """

    uri: str | None
    note: str = ""


def make_player(audio: str) -> Player:
    """Reads a recording as `samples.jsonl` names it, and encodes it anew: 16 kHz, mono, a minute of it at most."""
    try:
        wave = load_audio(_open(os.path.expandvars(audio)), RATE)
    except FileNotFoundError:
        return Player(None, "The recording is not on this machine.")
    except (OSError, ValueError, tarfile.TarError):  # whose words would name folders of this machine
        return Player(None, "The recording cannot be read.")
    seconds = len(wave) / RATE
    note = f"The first {LONGEST} of {seconds:.0f} s." if seconds > LONGEST else ""
    kind = next(kind for kind in FORMATS if kind in soundfile.available_formats())
    stream = io.BytesIO()
    soundfile.write(stream, wave[: LONGEST * RATE], RATE, format=kind)
    return Player(f"data:{FORMATS[kind]};base64,{base64.b64encode(stream.getvalue()).decode()}", note)


def _open(name: str):
    """What [`load_audio`] takes, for the name of a file, of a stretch of one, or of a member of a tar."""
    if stretch := re.fullmatch(r"(.+) \[([\d.e+-]+?)-([\d.e+-]+) s\]", name):
        return Segment(_open(stretch[1]), float(stretch[2]), float(stretch[3])).read()
    path = Path(name)
    for folder in path.parents:
        if folder.is_file():
            with tarfile.open(folder) as archive:
                try:
                    return archive.extractfile(path.relative_to(folder).as_posix()).read()
                except KeyError as error:
                    raise FileNotFoundError(f"{folder} has no {path.name}.") from error
    if not path.is_file():  # an address is not fetched
        raise FileNotFoundError(f"{name} is no file.")
    return name
