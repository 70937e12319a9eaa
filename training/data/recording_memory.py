"""What was found out about recordings, remembered as long as their files do not change."""

import json
import os
from pathlib import Path

from .recordings import Segment, audio_name


class RecordingMemory:
    """Remembers JSON values of each recording that lies in a file, by that file's path, size and time.

    Args:
        file (`str` or `Path`, *optional*): a JSON file; `None` remembers nothing.
        version (`str`): of what is remembered: what another version has left in the file counts for nothing.
    """

    def __init__(self, file: str | Path | None, version: str):
        self.file = None if file is None else Path(file)
        self.version = version
        self._values = self._read()

    def get(self, audio) -> list | None:
        """What is remembered of a recording; `None` if that is nothing, or its file has changed since."""
        stored = self._values.get(_place(audio))
        return stored[2:] if stored and stored[:2] == file_stamp(audio) else None

    def put(self, audio, values) -> None:
        """Remembers a list of values, if the recording lies in a file."""
        if self.file is not None and (stamp := file_stamp(audio)):
            self._values[_place(audio)] = [*stamp, *values]

    def save(self) -> None:
        """Writes the whole file or none. What another process has written there since is kept."""
        if self.file is None or not self._values:
            return
        self._values = self._read() | self._values
        self.file.parent.mkdir(parents=True, exist_ok=True)
        part = self.file.with_name(f"{self.file.name}.{os.getpid()}.tmp")
        part.write_text(json.dumps({"version": self.version, "recordings": self._values}) + "\n", encoding="utf-8")
        part.replace(self.file)

    def _read(self) -> dict[str, list]:
        if self.file is None or not self.file.is_file():
            return {}
        try:
            stored = json.loads(self.file.read_text(encoding="utf-8"))
            return stored["recordings"] if stored["version"] == self.version else {}
        except (ValueError, KeyError, TypeError):
            return {}  # half a file, or another's: finding it all out again is all that it costs


def file_stamp(audio) -> list[int] | None:
    """Size and time of the file that a recording lies in; `None` where it lies in none, or there is no telling."""
    try:
        stat = os.stat(file) if (file := _file_of(audio)) else None
    except OSError:
        return None
    return stat and [stat.st_size, stat.st_mtime_ns]


def _file_of(audio) -> str | None:
    if isinstance(audio, Segment):
        return _file_of(audio.audio)
    if table := getattr(audio, "table", None):
        return next((part["filename"] for part in table.cache_files), None)
    return audio if isinstance(audio, str) else getattr(audio, "archive", None)


def _place(audio) -> str:
    """Tells recordings apart, whatever corpora they are of and whatever folder they are looked at from."""
    file = os.path.abspath(_file_of(audio) or "")
    return file if isinstance(audio, str) else f"{file}, {audio_name(audio)}"
