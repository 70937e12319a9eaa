"""Tables of `datasets`: from the Hub, from a copy of a Hub repository, or from parquet files."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ..recordings import EncodedAudio, TableCell
from ..rows import Row
from .base import Source, listed


@dataclass(frozen=True, kw_only=True)
class DatasetsSource(Source):
    """What `datasets` reads. Recordings are decoded by soundfile, so that no torchcodec is needed."""

    def load(self, name: str | None, streaming: bool):
        """The table of one of their splits (`None`: of all).

        Raises:
            FileNotFoundError: if it cannot be had.
        """
        raise NotImplementedError

    def raw_rows(self, name: str | None, streaming: bool) -> Iterator[Row]:
        import datasets  # takes seconds, and most corpora do without

        table = self.load(name, streaming)
        for column, feature in (table.features or {}).items():
            if isinstance(feature, datasets.Audio):
                table = table.cast_column(column, datasets.Audio(decode=False))
        audio = self.columns.get("audio")
        holds_paths = isinstance((table.features or {}).get(audio), datasets.Value)  # which lead nowhere from here
        if streaming or audio not in table.column_names or holds_paths:
            yield from table
            return
        for index, row in enumerate(table.remove_columns(audio)):  # else listing the rows would read every recording
            yield row | {audio: TableCell(f"{self.place()}, {name} {index}", table, index, audio)}

    def find_audio(self, raw: Row, value):
        if isinstance(value, TableCell):
            return value
        if isinstance(value, str):
            raise ValueError(f"no recording: the audio column holds a path, {value}, and no bytes")
        if not isinstance(value, dict) or not value.get("bytes"):
            raise ValueError("no recording: the audio column holds no bytes")
        return EncodedAudio(value.get("path") or "", value["bytes"])


@dataclass(frozen=True, kw_only=True)
class HubSource(DatasetsSource):
    """A dataset on the Hub. A copy of its repository in `$SPEECHVERSE_DATA/<id>` goes before the Hub.

    Args:
        id (`str`): the Hub's, such as `openslr/librispeech_asr`.
        config (`str`, *optional*): the dataset's configuration.
        data_dir (`str`, *optional*): folder of the repository that holds the files, where it names no configurations.
        revision (`str`, *optional*): commit, tag or branch.
    """

    remote: ClassVar[bool] = True

    id: str
    config: str | None = None
    data_dir: str | None = None
    revision: str | None = None

    @property
    def copy(self) -> Path:
        return Path(os.path.expandvars("$SPEECHVERSE_DATA")) / self.id

    def is_there(self) -> bool:
        return self.copy.is_dir()

    def place(self) -> str:
        part = self.config or self.data_dir
        return f"{self.id}{f' ({part})' if part else ''}"

    def load(self, name: str | None, streaming: bool):
        import datasets

        origin = {"path": str(self.copy)} if self.is_there() else {"path": self.id, "revision": self.revision}
        try:
            return datasets.load_dataset(
                **origin, name=self.config, data_dir=self.data_dir, split=name or "all", streaming=streaming
            )
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            # gone, gated or offline; no such configuration or split; needs a script of its own
            where = self.copy if self.is_there() else "neither on the Hub nor in $SPEECHVERSE_DATA"
            raise FileNotFoundError(f"{self.place()}, split {name}: {where}: {_first_line(error)}") from error


@dataclass(frozen=True, kw_only=True)
class ParquetSource(DatasetsSource):
    """Parquet files in a folder.

    Args:
        root (`str`): the folder; `$NAME` stands for an environment variable.
        files (`str` or `list[str]`): glob patterns below the root; `{split}` stands for their name of a split.
    """

    root: str
    files: str | list[str]

    def found_files(self, name: str | None) -> list[str]:
        folder = Path(os.path.expandvars(self.root))
        patterns = [files if name is None else files.replace("{split}", name) for files in listed(self.files)]
        return sorted({str(file) for pattern in patterns for file in folder.glob(pattern)})

    def is_there(self) -> bool:
        return any(self.found_files(name) for name in self.split_names)

    def place(self) -> str:
        return " or ".join(f"{self.root}/{files}" for files in listed(self.files))

    def load(self, name: str | None, streaming: bool):
        import datasets

        if not (found := self.found_files(name)):
            raise FileNotFoundError(f"{self.place()}, split {name}: no such file")
        return datasets.load_dataset("parquet", data_files=found, split="train", streaming=streaming)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
