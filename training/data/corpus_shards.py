"""A corpus in shards: the folder has the tars or parquet files and a `corpus.yaml` that a run's configuration can name."""

import dataclasses
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import yaml
from tqdm.auto import tqdm

from .corpus import Corpus, columns_to_store, load_corpus, read_rows, recording_of
from .inspection import inspect_recordings
from .recordings import audio_name
from .rows import RejectedRow
from .shards import SHARD_BYTES, MemberNames, PlacedRow, ShardIndex
from .whole_files import write_whole


BATCH = 1024  # rows looked at together; where a corpus is streamed their recordings are held in memory
CUT = (
    "start",
    "end",
)  # columns that say which stretch of a longer file a recording is: in a shard it has been cut out


def shard_corpus(
    corpus: Corpus,
    split: str,
    folder: str | Path,
    kind: str = "tar",
    shard_bytes: int = SHARD_BYTES,
    streaming: bool = False,
    workers: int | None = None,
) -> tuple[Path, list[dict]]:
    """Writes a split's rows as shards. Run again after an interruption, it goes on after the last whole shard.

    Args:
        corpus ([`Corpus`]): the corpus.
        split (`str`): one of its splits.
        folder (`str` or `Path`): gets a folder named by the corpus's id.
        kind (`str`, *optional*, defaults to `"tar"`): `tar` or `parquet`.
        shard_bytes (`int`, *optional*, defaults to 500 MiB): a shard ends with the row that reaches it.
        streaming (`bool`, *optional*, defaults to `False`): read a corpus of the Hub without storing it.
        workers (`int`, *optional*): processes that check recordings; by default one for each core.

    Returns:
        the `corpus.yaml` that reads the shards, and the rows that are in none, as `{"corpus", "split", "key", "audio",
        "task", "reason"}`.

    Raises:
        FileNotFoundError: if the corpus is not there.
        ValueError: if the folder holds shards of other rows, or a row cannot be written.
    """
    source = corpus.found(corpus.built_sources)
    if split not in source.splits:
        raise ValueError(f"Corpus {corpus.id} has no split {split!r} in {source.place()}.")
    folder = Path(folder) / corpus.id
    index = ShardIndex.load(folder, split, kind)
    if not index.complete:
        stored, _ = columns_to_store(corpus, source)
        rows = read_rows(corpus, source, split, stored, streaming)
        rows = tqdm(rows, desc=f"Writing {corpus.id}/{split}", unit="clip")
        index.write(_placed_rows(rows, index, workers), shard_bytes)
    dropped = [{"corpus": corpus.id, "split": split, "task": None, **row} for row in index.dropped]
    return _write_corpus_file(corpus, source, folder, kind), dropped


def _placed_rows(rows, index: ShardIndex, workers: int | None) -> Iterator[PlacedRow]:
    """The rows that the index does not know; those that hold no usable recording say why."""
    names = MemberNames()
    named = (
        (position, names.of(row.key if isinstance(row, RejectedRow) else row["key"]), row)
        for position, row in enumerate(rows)
    )
    _pass_over(itertools.islice(named, index.rows_read), index)
    while batch := list(itertools.islice(named, BATCH)):
        audios = [row if isinstance(row, RejectedRow) else recording_of(row) for _, _, row in batch]
        audible = [audio for audio in audios if not isinstance(audio, RejectedRow)]
        facts = iter(inspect_recordings(audible, workers, show_progress=False))
        for (position, name, row), audio in zip(batch, audios, strict=True):
            if isinstance(audio, RejectedRow):
                yield PlacedRow(position, name, None, {"key": audio.key, "audio": None, "reason": audio.reason})
            elif fault := next(facts).fault:
                dropped = {"key": row["key"], "audio": audio_name(audio), "reason": fault}
                yield PlacedRow(position, name, None, dropped)
            else:
                fields = {column: value for column, value in row.items() if column not in CUT}
                yield PlacedRow(position, name, fields | {"audio": audio})


def _pass_over(named: Iterator, index: ShardIndex) -> None:
    """Raises `ValueError` unless the finished shards end with the row that the corpus has there now."""
    keys = [row.key if isinstance(row, RejectedRow) else row["key"] for _, _, row in named]
    if len(keys) < index.rows_read or keys[-1:] != [index.last_key][: len(keys)]:
        raise ValueError(
            f"{index.folder} holds other rows of {index.split} than the corpus has now: remove it and write the shards again."
        )


def _write_corpus_file(corpus: Corpus, source, folder: Path, kind: str) -> Path:
    """The corpus's facts with the shards in place of its sources."""
    stored, left = columns_to_store(corpus, source)
    columns = {name: name for name in sorted({*source.columns, *stored, "key"} - {"audio", *CUT})}
    splits = [split for split in source.splits if (folder / f"{split}.json").is_file()]
    shards = {"kind": kind, "root": _root(folder), "files": f"{{split}}-*.{kind}"}
    if kind == "parquet":
        columns["audio"] = "audio"
    shards |= {"splits": {split: split for split in splits}, "columns": columns}
    values = {f.name: getattr(corpus, f.name) for f in dataclasses.fields(corpus) if f.name != "file"}
    file = folder / "corpus.yaml"
    write_whole(
        file,
        yaml.safe_dump(
            values | {"sources": [shards], "texts": [], "derive": left}, sort_keys=False, allow_unicode=True, width=115
        ),
    )
    load_corpus(str(file))  # it can be read
    return file


def _root(folder: Path) -> str:
    """The folder, seen from `$SPEECHVERSE_DATA` where it lies there."""
    data = os.environ.get("SPEECHVERSE_DATA")
    folder = folder.resolve()
    if data and folder.is_relative_to(Path(data).resolve()):
        return f"$SPEECHVERSE_DATA/{folder.relative_to(Path(data).resolve()).as_posix()}"
    return folder.as_posix()
