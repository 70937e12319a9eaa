"""A corpus is a row of facts: a YAML file that says where its rows lie, what they hold and which tasks they serve."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from string import Formatter, Template

import yaml

from .derivations import Derivation, build_derivation, needed
from .recordings import EncodedAudio, Segment
from .rows import RejectedRow, Row, text_of
from .sources import Source, build_source
from .sources.base import check_patterns
from .strict import build


CORPORA_FOLDER = Path(__file__).parent / "corpora"
KINDS_OF_SPEECH = ("recorded", "synthetic", "mixed")


@dataclass(frozen=True)
class View:
    """What one task makes of a corpus's rows.

    Args:
        answer (`str`): column that holds the answer, of the task's kind.
        task (`str`, *optional*): id of the task; by default the view's own name.
        values (`dict[str, str]`, *optional*): what the prompts' `{names}` stand for; `$column` is a row's.
        labels (`dict[str, str]` or `str`, *optional*): classes with their descriptions, or the column that holds the list
            of a row's classes; by default the task's own.
        where (`dict[str, str]`, *optional*): rows that serve the task: regular expressions that columns match in full.
        instruction (`str` or `list[str]`, *optional*): wordings in place of the task's prompts.
        held_out_instruction (`str` or `list[str]`, *optional*): wordings in place of its held-out prompts. A view with
            wordings of its own and without these cannot be asked in held-out ones.
        default (`bool`, *optional*, defaults to `True`): whether it is taken where a run names no tasks. Views that hold
            classes to be tested unseen, or the same rows once more, are not.
    """

    answer: str
    task: str | None = None
    values: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] | str | None = None
    where: dict[str, str] = field(default_factory=dict)
    instruction: str | list[str] | None = None
    held_out_instruction: str | list[str] | None = None
    default: bool = True

    def __post_init__(self):
        if both := sorted(set(_listed(self.instruction)) & set(_listed(self.held_out_instruction))):
            raise ValueError(f"the wording {both[0]!r} is both trained on and held out.")
        check_patterns(self.where, "where")
        for name, value in self.values.items():
            if any(match["invalid"] is not None for match in Template.pattern.finditer(value)):
                raise ValueError(f"key values.{name} is {value!r}, whose $ is followed by no name.")

    @property
    def columns(self) -> set[str]:
        """The columns that it reads."""
        named = (
            match["named"] or match["braced"] for v in self.values.values() for match in Template.pattern.finditer(v)
        )
        labels = {self.labels} if isinstance(self.labels, str) else set()
        return {self.answer, *self.where, *filter(None, named), *labels}

    def wordings(self, task, prompts: str) -> list[str]:
        """In which words it is asked: its own, or else the task's.

        Args:
            task ([`Task`]): the task.
            prompts (`str`): `trained` or `held_out`.

        Raises:
            ValueError: if it has no such wordings.
        """
        if prompts == "trained":
            return _listed(self.instruction) or task.prompts
        if self.instruction is not None and not self.held_out_instruction:
            raise ValueError("it has an instruction of its own and no held_out_instruction to ask in.")
        if not (wordings := _listed(self.held_out_instruction) or task.held_out_prompts):
            raise ValueError(f"task {task.id!r} has no held-out prompts.")
        return wordings

    def asks_for(self, task) -> set[str]:
        """The `{names}` in any of its wordings, trained and held out."""
        wordings = [*(_listed(self.instruction) or task.prompts), *_listed(self.held_out_instruction)]
        if self.instruction is None and not self.held_out_instruction:
            wordings += task.held_out_prompts
        return set().union(*map(names_in, wordings))


def _listed(wordings: str | list[str] | None) -> list[str]:
    return [wordings] if isinstance(wordings, str) else wordings or []


def names_in(wording: str) -> set[str]:
    """The `{names}` in a wording."""
    return {name for _, name, _, _ in Formatter().parse(wording) if name is not None}


@dataclass(frozen=True)
class Corpus:
    """The facts of one corpus.

    Args:
        id (`str`): short name; a shipped file is called after it.
        title (`str`): as its authors call it.
        licence (`str`): of the recordings, as published; an SPDX id where there is one.
        permissive (`bool`): whether that licence lets a trained model be used commercially. `licences: permissive` in a
            run's configuration leaves the others out.
        citation (`str`): where it was published.
        access (`str`): how to get it; said where it is missing.
        sources (`list[dict]`): the layouts in which its recordings may be found; the first that is there is read.
        tasks (`dict[str, dict]`): views, by name: see [`View`].
        texts (`list[dict]`, *optional*): layouts of sentences that still have to be spoken; see `texts`.
        derive (`list`, *optional*): what is made of the columns; see derivations.py.
        descriptions (`dict[str, str]`, *optional*): of classes that a view lists by a column; by default the task's.
        speech (`str`, *optional*, defaults to `recorded`): whose it is: `recorded` from people, `synthetic`, which is from TTS,
            or `mixed`. A model's card says how much of what it learned from was synthetic.
        note (`str`, *optional*): what to mind when it is used beside other corpora; `prepare.py` prints it.
        file (`str`, *optional*): where these facts stand.
    """

    id: str
    title: str
    licence: str
    permissive: bool
    citation: str
    access: str
    sources: list[dict]
    tasks: dict[str, dict]
    texts: list[dict] = field(default_factory=list)
    derive: list[dict | str] = field(default_factory=list)
    descriptions: dict[str, str] = field(default_factory=dict)
    speech: str = "recorded"
    note: str = ""
    file: str = ""

    def __post_init__(self):
        if self.speech not in KINDS_OF_SPEECH:
            raise ValueError(f"speech is {self.speech!r}; it is one of {', '.join(KINDS_OF_SPEECH)}")
        # The parts are built here, so that a mistake in any of them is found when the file is read.
        if not self.sources or not self.tasks:
            raise ValueError("a corpus has at least one of sources, and one of tasks")
        made = {column for derivation in self.derivations for column in derivation.outputs}
        for source in self.built_sources + self.built_texts:
            known = made | self._columns_of(source)
            for name, view in self.views.items():
                if lacking := sorted(view.columns - known):
                    raise ValueError(
                        f"tasks.{name} reads {', '.join(lacking)}, which no column and no derivation gives"
                    )

    @cached_property
    def built_sources(self) -> list[Source]:
        return [build_source(values, f"sources[{index}]") for index, values in enumerate(self.sources)]

    @cached_property
    def built_texts(self) -> list[Source]:
        return [build_source(values, f"texts[{index}]") for index, values in enumerate(self.texts)]

    @cached_property
    def derivations(self) -> list[Derivation]:
        return [build_derivation(entry, f"derive[{index}]") for index, entry in enumerate(self.derive)]

    @property
    def default_views(self) -> list[str]:
        """Names of the views that are taken where a run names no tasks."""
        return [name for name, view in self.views.items() if view.default]

    def task_of(self, view: str) -> str:
        """Id of the task of one of its views."""
        return self.views[view].task or view

    @property
    def columns(self) -> set[str]:
        """The columns that its rows have, whichever of its sources is read."""
        made = {column for derivation in self.derivations for column in derivation.outputs}
        return made | set.intersection(*map(self._columns_of, self.built_sources))

    @staticmethod
    def _columns_of(source: Source) -> set[str]:
        own = {column for entry in source.derive for column in build_derivation(entry, "derive").outputs}
        return {*source.columns, *own, "key"}

    @cached_property
    def views(self) -> dict[str, View]:
        return {name: build(View, values, f"tasks.{name}") for name, values in self.tasks.items()}

    def found(self, sources: list[Source]) -> Source:
        """The first of the sources that lies on this machine; failing that, the first on the Hub.

        Raises:
            FileNotFoundError: if there is neither; it says how to get the corpus.
        """
        for source in sources:
            if source.is_there():
                return source
        for source in sources:
            if source.remote:
                return source
        raise FileNotFoundError(self.missing("; ".join(source.place() for source in sources)))

    def missing(self, place: str) -> str:
        """What to say where it is not found."""
        root = "" if "SPEECHVERSE_DATA" in os.environ else " $SPEECHVERSE_DATA, the folder of all data, is not set."
        return f"Corpus {self.id} is not there: {place}.{root} How to get it: {self.access.strip()}"


def load_corpus(name: str) -> Corpus:
    """Reads a shipped corpus by its id, or a YAML file by its path.

    Raises:
        FileNotFoundError: if there is no such id or file; the message lists the ids.
        ValueError: if the file lacks a field, has an unknown one, or one of the wrong kind; file and field are named.
    """
    file = Path(os.path.expandvars(name)) if name.endswith((".yaml", ".yml")) else CORPORA_FOLDER / f"{name}.yaml"
    if not file.is_file():
        raise FileNotFoundError(
            f"There is no corpus {name!r}; give the path of a YAML file, or one of {', '.join(corpus_ids())}."
        )
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not YAML: {error}") from error
    if isinstance(values, dict):
        values = {"file": str(file), **values}
    return build(Corpus, values, str(file))


def corpus_ids() -> list[str]:
    """The ids of the corpora that are shipped."""
    return sorted(file.stem for file in CORPORA_FOLDER.glob("*.yaml"))


def texts(corpus: Corpus) -> Iterator[Row | RejectedRow]:
    """The sentences of a corpus that is spoken by a TTS engine, as `synthesize.py` takes them.

    Returns:
        rows with `text`, `key`, `split` and the labels: what the corpus's `sources` then read in the manifest.

    Raises:
        FileNotFoundError: if they are not there; the message says how to get them.
        ValueError: if the corpus is no such corpus.
    """
    if not corpus.texts:
        raise ValueError(f"Corpus {corpus.id} has recordings of its own: it is not spoken.")
    source = corpus.found(corpus.built_texts)
    columns = {column for source in corpus.built_sources for column in source.columns}
    for split in source.splits:
        for row in read_rows(corpus, source, split, columns, streaming=False):
            if isinstance(row, RejectedRow):
                yield replace(row, corpus=corpus.id, split=split)
            elif not text_of(row.get("text")).strip():
                yield RejectedRow(row["key"], "no text: there is nothing to say", corpus=corpus.id, split=split)
            else:
                yield row | {"split": split}


def read_rows(
    corpus: Corpus, source: Source, split: str, columns: set[str], streaming: bool
) -> Iterator[Row | RejectedRow]:
    """The rows of a split, with those derived columns that are needed for some.

    Args:
        corpus ([`Corpus`]): the corpus.
        source ([`Source`]): where it is found.
        split (`str`): one of the source's splits.
        columns (`set[str]`): what will be read of the rows.
        streaming (`bool`): store nothing of what lies elsewhere.

    Raises:
        FileNotFoundError: if it is not there after all; the message says how to get it.
        ValueError: if the source has no such split, or a file as a whole cannot be read.
    """
    own = [build_derivation(entry, f"derive[{index}]") for index, entry in enumerate(source.derive)]
    derivations = needed([*own, *corpus.derivations], columns)
    read = {column for derivation in derivations for column in derivation.inputs} | {"key"}

    @cache
    def train_rows(index: int) -> list[Row | RejectedRow]:
        """The training split as it comes into a derivation, read once for all; only what derivations read of it is kept."""
        if index:
            return list(derivations[index - 1].apply(train_rows(index - 1), lambda: train_rows(index - 1)))
        return [
            row if isinstance(row, RejectedRow) else {column: row[column] for column in row.keys() & read}
            for row in source.rows("train", streaming)
        ]

    rows: Iterable[Row | RejectedRow] = source.rows(split, streaming)
    for index, derivation in enumerate(derivations):
        rows = derivation.apply(rows, lambda index=index: train_rows(index))
    try:
        yield from rows
    except FileNotFoundError as error:
        raise FileNotFoundError(corpus.missing(str(error).rstrip("."))) from error


def columns_to_store(corpus: Corpus, source: Source) -> tuple[set[str], list[dict | str]]:
    """What shards of a corpus have to hold beside the source's columns, since it takes more than a row to derive it.

    Returns:
        the columns that [`read_rows`] should make, and what is then left to be derived.
    """
    entries = [*source.derive, *corpus.derive]
    derivations = [build_derivation(entry, "derive") for entry in entries]
    bound = {column for derivation in derivations if derivation.bound for column in derivation.outputs}
    made = needed(derivations, bound)
    left = [entry for entry, derivation in zip(entries, derivations, strict=True) if derivation not in made]
    return {column for derivation in made for column in derivation.outputs}, left


def recording_of(row: Row):
    """A row's recording: cut out of a longer one where the row says from when to when; a [`RejectedRow`] if it cannot be."""
    audio = row["audio"]
    if isinstance(audio, EncodedAudio):
        return replace(audio, name=row["key"])
    if row.get("start") is None:
        return audio
    try:
        start, end = float(row["start"]), float(row["end"])
    except (TypeError, ValueError):
        return RejectedRow(row["key"], f"no times: start {row['start']!r}, end {row.get('end')!r}")
    return Segment(audio, start, end) if 0 <= start < end else RejectedRow(row["key"], f"no times: {start} to {end}")
