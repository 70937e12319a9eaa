"""Where a corpus's rows lie: one small reader for each kind of layout.

A reader gives rows under the corpus's own column names, with the recordings by reference. New kinds are a class and a row
of `SOURCES`.
"""

from ..strict import build
from .base import Source
from .hub import HubSource, ParquetSource
from .local import AudioFolderSource, JsonlSource, JsonSource, LinesSource, TableSource
from .tar import TarSource


SOURCES: dict[str, type[Source]] = {
    "hub": HubSource,
    "parquet": ParquetSource,
    "audio_folder": AudioFolderSource,
    "jsonl": JsonlSource,
    "json": JsonSource,
    "table": TableSource,
    "lines": LinesSource,
    "tar": TarSource,
}


def build_source(values, where: str) -> Source:
    """A source from its entry in a corpus's file.

    Raises:
        ValueError: if the entry has no known `kind`, or does not fit it.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{where} is {type(values).__name__}, not a mapping.")
    values = dict(values)
    kind = values.pop("kind", None)
    if kind not in SOURCES:
        raise ValueError(f"{where}: key kind is {kind!r}; it is one of {', '.join(SOURCES)}.")
    return build(SOURCES[kind], values, where)
