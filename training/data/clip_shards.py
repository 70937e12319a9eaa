"""Uncompressed tar shards in WebDataset's layout: `000000.flac` and `000000.json` for every clip."""

import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ShardedClip:
    """Where a clip lies in a shard, and its manifest row."""

    path: Path
    offset: int
    size: int
    row: dict

    def read(self) -> bytes:
        """The audio file."""
        with self.path.open("rb") as stream:
            stream.seek(self.offset)
            return stream.read(self.size)


def write_shard(path: Path, clips: Iterable[tuple[str, bytes, dict]]) -> None:
    """
    Writes a whole shard or none, byte for byte a function of its clips.

    Args:
        path (`Path`): The tar file.
        clips (`Iterable[tuple[str, bytes, dict]]`): Key, FLAC file and manifest row of each.
    """
    part = path.with_name(path.name + ".part")
    with tarfile.open(part, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, audio, row in clips:
            _add(tar, f"{key}.flac", audio)
            _add(tar, f"{key}.json", json.dumps(row, ensure_ascii=False).encode())
    part.replace(path)


def read_shards(folder: Path) -> dict[str, ShardedClip]:
    """The clips of every shard in a folder by key, with the rows read and the audio left where it is."""
    clips = {}
    for path in sorted(folder.glob("*.tar")):
        clips |= dict(_read_shard(path))
    return clips


def _read_shard(path: Path) -> Iterator[tuple[str, ShardedClip]]:
    audio = {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            key, suffix = os.path.splitext(member.name)
            if suffix == ".json" and key in audio:
                row = json.loads(tar.extractfile(member).read())
                yield key, ShardedClip(path, audio[key].offset_data, audio[key].size, row)
            else:
                audio[key] = member


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # neither time nor owner: the same clips give the same bytes
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
