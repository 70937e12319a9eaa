"""Few large files in place of many small ones: tar shards in WebDataset layout, or parquet.

The bytes of a recording are kept as they are. A split is `SPLIT-000000.tar` (or `.parquet`) and so on, with `SPLIT.json`,
which lists them, and `SPLIT.dropped.jsonl`, the rows that are in none and why.
"""

import io
import json
import re
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import soundfile

from .recordings import audio_name, open_audio
from .rows import Row
from .whole_files import write_whole


SHARD_BYTES = 500 * 2**20
MAGIC = {b"fLaC": "flac", b"OggS": "ogg", b"RIFF": "wav", b"ID3": "mp3"}


class PlacedRow(NamedTuple):
    """A row on its way into a shard.

    Args:
        position (`int`): its number in the split, from 0.
        name (`str`): of its files, without ending.
        row (`dict`, *optional*): `audio` is the recording, `key` is there, the rest are its fields; `None`: left out.
        dropped (`dict`, *optional*): why it is left out: `reason`, and whatever tells it from others.
    """

    position: int
    name: str
    row: Row | None
    dropped: dict | None = None


@dataclass
class ShardIndex:
    """The shards of a split. A shard that is not listed is not finished.

    Args:
        folder (`Path`): of the shards.
        split (`str`): which split.
        kind (`str`): `tar` or `parquet`.
        complete (`bool`): whether these are all.
        rows_read (`int`): how many rows of the split are in these shards, or were left out on the way.
        last_key (`str`, *optional*): of the last row in them.
        shards (`list[dict]`): `name`, `rows` and `bytes` of each.
        dropped (`list[dict]`): the rows that were left out.
    """

    folder: Path
    split: str
    kind: str
    complete: bool = False
    rows_read: int = 0
    last_key: str | None = None
    shards: list[dict] = field(default_factory=list)
    dropped: list[dict] = field(default_factory=list)

    @classmethod
    def load(cls, folder: Path, split: str, kind: str) -> "ShardIndex":
        """The index that is there, or an empty one.

        Raises:
            ValueError: if the folder holds shards of another kind, or misses one that the index lists.
        """
        file = folder / f"{split}.json"
        if not file.is_file():
            return cls(folder, split, kind)
        index = cls(folder, **json.loads(file.read_text(encoding="utf-8")))
        if index.kind != kind:
            raise ValueError(f"{folder} holds {index.kind} shards of {split}: take another folder for {kind}.")
        for shard in index.shards:
            path = folder / shard["name"]
            if not path.is_file() or path.stat().st_size != shard["bytes"]:
                raise ValueError(f"{path} is not as {file} lists it: remove {folder} and write the shards again.")
        with (folder / f"{split}.dropped.jsonl").open(
            encoding="utf-8"
        ) as lines:  # splitlines() would also end at U+2028
            index.dropped = [row for row in map(json.loads, lines) if row["row"] < index.rows_read]
        return index

    def save(self) -> None:
        """Writes `SPLIT.dropped.jsonl` and then `SPLIT.json`."""
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.dropped)
        write_whole(self.folder / f"{self.split}.dropped.jsonl", lines)
        names = ("split", "kind", "complete", "rows_read", "last_key", "shards")
        values = {name: getattr(self, name) for name in names}
        write_whole(self.folder / f"{self.split}.json", json.dumps(values, indent=2, ensure_ascii=False) + "\n")

    def write(self, rows: Iterable[PlacedRow], shard_bytes: int = SHARD_BYTES) -> None:
        """Writes the rows that are in no shard yet, and marks the split as complete.

        Args:
            rows (`Iterable[PlacedRow]`): the rows from `rows_read` on, in order.
            shard_bytes (`int`, *optional*, defaults to 500 MiB): a shard ends with the row that reaches it.

        Raises:
            ValueError: if a row cannot be written; the shards before it stay.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        first = self.folder / self.shards[0]["name"] if self.shards else None
        shard, count, position = None, 0, self.rows_read - 1
        for position, name, row, dropped in rows:
            if row is None:
                self.dropped.append({"row": position, **dropped})
                continue
            if shard is None:
                shard = SHARD_WRITERS[self.kind](
                    self.folder / f"{self.split}-{len(self.shards):06d}.{self.kind}", first
                )
                count = 0
            shard.add(name, row)
            self.last_key, count = row["key"], count + 1
            if shard.num_bytes >= shard_bytes:
                self._finish(shard, count, position)
                first, shard = first or shard.file, None
        self.complete = True
        if shard is not None:
            self._finish(shard, count, position)
        self.rows_read = position + 1
        self.save()

    def _finish(self, shard: "ShardWriter", count: int, position: int) -> None:
        shard.close()
        self.shards.append({"name": shard.file.name, "rows": count, "bytes": shard.file.stat().st_size})
        self.rows_read = position + 1
        self.save()


class ShardWriter:
    """Writes one shard under another name, and gives it its own when it is whole.

    Args:
        file (`Path`): the shard.
        first (`Path`, *optional*): the split's first shard, where there is one.
    """

    ending: ClassVar[str]

    def __init__(self, file: Path, first: Path | None = None):
        self.file, self.first = file, first
        self.part = file.with_name(file.name + ".tmp")
        self.num_bytes = 0

    def add(self, name: str, row: Row) -> None:
        """Takes a row.

        Args:
            name (`str`): of its file, without ending.
            row (`dict`): `audio` is the recording, the rest its fields.

        Raises:
            ValueError: if it cannot be written.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Finishes the shard."""
        self.part.replace(self.file)


class TarShardWriter(ShardWriter):
    """`NAME.flac` (or `.ogg`, `.wav`, `.mp3`) and `NAME.json` for each row."""

    def __init__(self, file: Path, first: Path | None = None):
        super().__init__(file, first)
        self.archive = tarfile.open(self.part, "w")

    def add(self, name, row):
        content, ending = encoded_audio(row["audio"])
        fields = {column: value for column, value in row.items() if column != "audio"}
        try:
            text = json.dumps(fields, ensure_ascii=False)
        except TypeError as error:
            raise ValueError(f"Row {row['key']} cannot be written as JSON: {error}.") from error
        for member, data in ((f"{name}.{ending}", content), (f"{name}.json", text.encode())):
            info = tarfile.TarInfo(member)  # without time or owner: the same rows make the same bytes
            info.size = len(data)
            self.archive.addfile(info, io.BytesIO(data))
            self.num_bytes += len(data)

    def close(self):
        self.archive.close()
        super().close()


class ParquetShardWriter(ShardWriter):
    """A row each, with the recording as `audio: {bytes, path}`: what `datasets` takes for audio."""

    ROW_GROUP = 100  # so many recordings are read at once

    def __init__(self, file: Path, first: Path | None = None):
        super().__init__(file, first)
        self.rows: list[Row] = []

    def add(self, name, row):
        content, ending = encoded_audio(row["audio"])
        self.rows.append(row | {"audio": {"bytes": content, "path": f"{name}.{ending}"}})
        self.num_bytes += len(content)

    def close(self):
        import pyarrow
        from pyarrow import parquet

        try:
            schema = parquet.read_schema(self.first) if self.first else _schema_of(self.rows)
            if unknown := sorted({name for row in self.rows for name in row} - set(schema.names)):
                raise ValueError(f"the rows before it have no column {', '.join(unknown)}")
            table = pyarrow.Table.from_pylist(self.rows, schema=schema)
        except (pyarrow.ArrowException, ValueError) as error:
            raise ValueError(f"{self.file}: its rows do not make one table ({error}): write tar shards.") from error
        parquet.write_table(table, self.part, row_group_size=self.ROW_GROUP)
        super().close()


SHARD_WRITERS: dict[str, type[ShardWriter]] = {"tar": TarShardWriter, "parquet": ParquetShardWriter}


def _schema_of(rows: list[Row]):
    """A table's schema, with the notes by which `datasets` knows the recordings; a column that is all empty is text."""
    import datasets
    import pyarrow

    columns = dict.fromkeys(name for row in rows for name in row if name != "audio")
    types = {name: pyarrow.array([row.get(name) for row in rows]).type for name in columns}
    types = {name: pyarrow.string() if pyarrow.types.is_null(found) else found for name, found in types.items()}
    features = datasets.Features.from_arrow_schema(pyarrow.schema(list(types.items())))
    return datasets.Features({"audio": datasets.Audio(decode=False), **features}).arrow_schema


def encoded_audio(audio) -> tuple[bytes, str]:
    """The bytes of a recording's file, as they are, and the ending that says what they are.

    A stretch of a longer file, which has none of its own, becomes FLAC, without loss up to 24 bits.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if nobody can tell what the bytes are.
    """
    content = open_audio(audio)
    if isinstance(content, dict) and content.get("array") is not None:
        return _flac(np.asarray(content["array"]).T, content["sampling_rate"]), "flac"
    path = content if isinstance(content, str) else audio_name(audio)
    if isinstance(content, dict):
        path = content.get("path") or path
        content = path if content.get("bytes") is None else content["bytes"]
    content = Path(content).read_bytes() if isinstance(content, str) else bytes(content)
    for magic, ending in MAGIC.items():
        if content.startswith(magic):
            return content, ending
    if content[:1] == b"\xff" and content[1:2] >= b"\xe0":  # an mp3 frame without a tag before it
        return content, "mp3"
    if suffix := Path(path).suffix.lower().lstrip("."):
        return content, suffix
    raise ValueError(f"audio {path!r} is of no kind that has an ending: its bytes start with {content[:4]!r}.")


def _flac(wave: np.ndarray, rate: int) -> bytes:
    # As whole numbers, since libsndfile scales floats by one step less than full scale.
    whole = np.clip(np.round(wave.astype(np.float64) * 2**31), -(2**31), 2**31 - 1).astype(np.int32)
    buffer = io.BytesIO()
    soundfile.write(buffer, whole, rate, format="FLAC", subtype="PCM_24")
    return buffer.getvalue()


class MemberNames:
    """File names out of keys: a dot would start the ending, and two keys may become one name."""

    def __init__(self):
        self._times_used: dict[str, int] = {}

    def of(self, key: str) -> str:
        plain = re.sub(r"[^\w/-]", "_", key).strip("/") or "_"
        name = plain
        while name in self._times_used:
            self._times_used[plain] += 1
            name = f"{plain}-{self._times_used[plain]}"
        self._times_used[name] = 1
        return name
