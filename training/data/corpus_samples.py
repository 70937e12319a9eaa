"""A corpus's rows, and the tasks that they serve -> samples."""

import random
from collections.abc import Iterator
from dataclasses import replace
from string import Template

from ...processing.tasks_speechverse import JointTask
from .corpus import Corpus, View, names_in, read_rows, recording_of
from .rows import RejectedRow, Row, matches, text_of
from .sample import JointSample, Sample


PROMPTS = ("trained", "held_out")
TRANSCRIPT_VIEW = "asr"  # whose answers are the recordings' words


def read_samples(
    corpus: Corpus,
    split: str,
    bank,
    tasks: list[str] | None = None,
    streaming: bool = False,
    prompts: str = "trained",
    joint: list[list[str]] | None = None,
    excluded: tuple[str, dict[str, str]] | None = None,
    where: dict[str, str] | None = None,
) -> Iterator[Sample | RejectedRow]:
    """Reads a split row by row, in the order of its files; every view of a row gives a sample, or is rejected.

    Args:
        corpus ([`Corpus`]): what to read.
        split (`str`): one of the corpus's splits, such as `train`.
        bank ([`TaskBank`]): the tasks that the views name.
        tasks (`list[str]`, *optional*): names of views under the corpus's `tasks`; by default all but those whose
            `default` is false.
        streaming (`bool`, *optional*, defaults to `False`): read a corpus of the Hub without storing it: a sample then
            holds the bytes of its recording.
        prompts (`str`, *optional*, defaults to `"trained"`): `held_out` takes the wordings that are never trained on.
        joint (`list[list[str]]`, *optional*): names of views that are asked together: a row that serves all of a list
            also gives one sample of them.
        excluded (`tuple[str, dict[str, str]]`, *optional*): a column, and what rejects a row that has it there: values
            as [`values_of`] gives them, and where they are from.
        where (`dict[str, str]`, *optional*): rows to take: regular expressions that columns match in full; an empty column
            is ''.

    Raises:
        FileNotFoundError: if the corpus is not there; the message says how to get it.
        ValueError: if the corpus has no such split or view, or a view does not fit its task.
    """
    views = _chosen_views(corpus, tasks, bank, prompts, joint or [])
    column, elsewhere = excluded or (None, {})
    where = where or {}
    transcript = corpus.views[TRANSCRIPT_VIEW].answer if TRANSCRIPT_VIEW in corpus.views else None
    columns = {column for view in views for column in view.columns} | ({column, transcript} - {None}) | where.keys()
    source = corpus.found(corpus.built_sources)
    for row in read_rows(corpus, source, split, columns, streaming):
        if isinstance(row, RejectedRow):
            yield replace(row, corpus=corpus.id, split=split)
            continue
        if place := elsewhere.get(_same(row[column]) if column else None):
            yield RejectedRow(row["key"], f"excluded: {place} has its {column} too", corpus=corpus.id, split=split)
            continue
        if not matches(row, where):
            continue
        audio = recording_of(row)
        facts = {"transcript": text_of(row.get(transcript)).strip() or None, "snr": _decibels(row.get("snr"))}
        for view in views:
            if isinstance(audio, RejectedRow):
                yield replace(audio, corpus=corpus.id, split=split)
                break
            sample = view.sample(row, audio, corpus.id, split)
            if isinstance(sample, Sample):
                yield replace(sample, **facts)
            elif sample is not None:
                yield sample


def load_corpus_samples(
    corpus: Corpus,
    split: str,
    bank,
    tasks: list[str] | None = None,
    limit: int | None = None,
    prompts: str = "trained",
    joint: list[list[str]] | None = None,
    excluded: tuple[str, dict[str, str]] | None = None,
    where: dict[str, str] | None = None,
) -> tuple[list[Sample], list[RejectedRow]]:
    """All samples of a split, their recordings by reference, and the rows that gave none.

    Args:
        limit (`int`, *optional*): keep so many samples of each view, drawn from the whole split, the same every time.
        The others are [`read_samples`]'s.

    Raises:
        ValueError: also if no sample is left.
    """
    samples, rejected = [], []
    for item in read_samples(corpus, split, bank, tasks, prompts=prompts, joint=joint, excluded=excluded, where=where):
        (rejected if isinstance(item, RejectedRow) else samples).append(item)
    if not samples:
        first = (
            f"; the first of {len(rejected)} rejected rows, {rejected[0].key}: {rejected[0].reason}"
            if rejected
            else ""
        )
        raise ValueError(f"Corpus {corpus.id} has no sample in {split}{first}.")
    return _limited(samples, limit), rejected


def values_of(corpus: Corpus, split: str, column: str) -> set[str]:
    """What a split has in a column, without regard to case and spacing.

    Raises:
        FileNotFoundError: if the corpus is not there.
        ValueError: if no row of the split has anything there, as where the recordings are missing.
    """
    rows = list(read_rows(corpus, corpus.found(corpus.built_sources), split, {column}, streaming=False))
    values = {_same(row[column]) for row in rows if not isinstance(row, RejectedRow)} - {""}
    if not values:
        first = (
            f"; the first of {len(rows)} rows: {rows[0].reason}" if rows and isinstance(rows[0], RejectedRow) else ""
        )
        raise ValueError(f"Corpus {corpus.id} has no {column} in {split}: there is nothing to exclude{first}.")
    return values


def _decibels(value) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):  # nothing, or words such as "clean"
        return None


def _same(value) -> str:
    return " ".join(text_of(value).casefold().split())


class _TaskView:
    """A view with its task: makes samples of rows."""

    def __init__(self, corpus: Corpus, name: str, view: View, task, prompts: str):
        self.corpus, self.name, self.view, self.task = corpus, name, view, task
        self.columns = view.columns
        try:
            self.wordings = tuple(view.wordings(task, prompts))
        except ValueError as error:
            raise ValueError(f"{corpus.file}: tasks.{name}: {error}") from error
        asked = set().union(*map(names_in, self.wordings))
        if unasked := sorted(view.values.keys() - view.asks_for(task)):
            raise ValueError(
                f"{corpus.file}: tasks.{name}.values has {', '.join(unasked)}, which no prompt of {task.id} asks for."
            )
        if lacking := sorted(asked - {"labels"} - view.values.keys()):
            raise ValueError(
                f"{corpus.file}: tasks.{name}.values lacks {', '.join(lacking)}, which the prompts of {task.id} ask for."
            )
        self.asks_for_labels = "labels" in asked
        self.asked = sorted(asked - {"labels"})
        self._label_sets: dict[tuple, dict[str, str]] = {}  # shared by the samples

    def sample(self, row: Row, audio, corpus_id: str, split: str) -> Sample | RejectedRow | None:
        """`None` where the view's `where` leaves the row out."""
        if not matches(row, self.view.where):
            return None
        answer = row[self.view.answer]
        labels = self._labels(row)
        try:
            if self.task.answer_type in ("text", "label"):
                answer = text_of(answer).strip()
            if answer is None or answer == "":
                raise ValueError(f"no answer: column {self.view.answer} is empty")
            if self.asks_for_labels and not labels:
                raise ValueError("no classes: the prompts list them")
            target = self._target(answer, labels)
            values = {name: self._value(row, name) for name in self.asked}
        except ValueError as error:
            return RejectedRow(row["key"], str(error), self.name, corpus_id, split)
        return Sample(
            audio,
            self.wordings,
            target,
            task=self.task.id,
            values=values,
            labels=labels or None,
            answer=answer,
            key=row["key"],
            corpus=corpus_id,
            split=split,
            speaker=text_of(row.get("speaker")) or None,
            duration=row.get("duration"),
            view=self.name,
        )

    def _target(self, answer, labels: dict[str, str]) -> str:
        try:
            return self.task.format(answer, labels or None)
        except ValueError as error:
            raise ValueError(f"bad label: {error}") from error

    def _value(self, row: Row, name: str) -> str:
        value = Template(self.view.values[name]).substitute({k: text_of(v) for k, v in row.items()}).strip()
        if not value:
            raise ValueError(f"no value: {name} is empty, and the prompts ask for it")
        return value

    def _labels(self, row: Row) -> dict[str, str]:
        labels = self.view.labels
        if labels is None:
            return self.task.labels
        if isinstance(labels, dict):
            return labels
        names = tuple(row[labels] or ())
        if names not in self._label_sets:
            descriptions = self.task.labels | self.corpus.descriptions
            self._label_sets[names] = {name: descriptions.get(name, "") for name in names}
        return self._label_sets[names]


class _JointView:
    """Several views that are asked together."""

    def __init__(self, views: list[_TaskView]):
        self.views = views
        self.joint = JointTask([view.task for view in views])
        self.name = "+".join(view.name for view in views)
        self.columns = set().union(*(view.columns for view in views))

    def sample(self, row: Row, audio, corpus_id: str, split: str) -> JointSample | RejectedRow | None:
        """`None` where one of the views leaves the row out."""
        parts = [view.sample(row, audio, corpus_id, split) for view in self.views]
        if any(part is None for part in parts):
            return None
        if rejected := [part for part in parts if isinstance(part, RejectedRow)]:
            return replace(rejected[0], task=self.name)
        first, answer = parts[0], {part.task: part.answer for part in parts}
        labels = {part.task: part.labels for part in parts if part.labels}
        try:
            target = self.joint.format(answer, labels)
        except ValueError as error:
            return RejectedRow(row["key"], f"no joint answer: {error}", self.name, corpus_id, split)
        return JointSample(
            audio,
            (),
            target,
            task=self.joint.id,
            labels=labels,
            answer=answer,
            key=first.key,
            corpus=corpus_id,
            split=split,
            speaker=first.speaker,
            duration=first.duration,
            view=self.name,
            joint=self.joint,
            parts=tuple(parts),
        )


def _chosen_views(
    corpus: Corpus, names: list[str] | None, bank, prompts: str, joint: list[list[str]]
) -> list[_TaskView | _JointView]:
    if prompts not in PROMPTS:
        raise ValueError(f"prompts is {prompts!r}; it is one of {', '.join(PROMPTS)}.")
    chosen = corpus.default_views if names is None else names
    if not chosen and not joint:
        raise ValueError(f"No task of corpus {corpus.id} is chosen; it serves {', '.join(corpus.views)}.")
    together = [_JointView(_views(corpus, several, bank, prompts)) for several in joint]
    return _views(corpus, chosen, bank, prompts) + together


def _views(corpus: Corpus, names: list[str], bank, prompts: str) -> list[_TaskView]:
    views = []
    for name in names:
        if name not in corpus.views:
            raise ValueError(f"Corpus {corpus.id} serves no task {name!r}; it serves {', '.join(corpus.views)}.")
        view, task_id = corpus.views[name], corpus.task_of(name)
        if task_id not in bank:
            raise ValueError(
                f"{corpus.file}: tasks.{name} names the task {task_id!r}; known are {', '.join(t.id for t in bank)}."
            )
        views.append(_TaskView(corpus, name, view, bank[task_id], prompts))
    return views


def _limited(samples: list[Sample], limit: int | None) -> list[Sample]:
    """So many samples of each view, in their order."""
    if limit is None:
        return samples
    by_view: dict[str | None, list[int]] = {}
    for index, sample in enumerate(samples):
        by_view.setdefault(sample.view, []).append(index)
    kept = [
        index
        for indices in by_view.values()
        for index in (indices if len(indices) <= limit else random.Random(0).sample(indices, limit))
    ]
    return [samples[index] for index in sorted(kept)]
