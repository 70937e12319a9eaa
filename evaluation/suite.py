"""Suites: the rows of a table, each a corpus x task x prompts x decoding x metric, with a paper's figures beside them."""

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from ..processing.tasks_speechverse import TaskBank
from ..training.arguments import all_tasks
from ..training.data.corpus import load_corpus
from ..training.data.filters import CheckedSample, FilterRules, check_samples, usable
from ..training.data.inspection import FactsCache
from ..training.data.manifest import ManifestSource, expand_variables
from ..training.data.run_sources import CorpusSource, load_source, parse_source
from ..training.data.sample import JointSample, Sample
from ..training.data.strict import NumberLoader, build
from .corpus_metric import CorpusMetric, load_metric
from .criteria import parse_criteria


SUITES_FOLDER = Path(__file__).with_name("suites")
DECODING = ("free", "constrained", "scored")
PASS_RATE = "pass_rate"  # of rows with criteria
# All kinds of systems but the oracle, which is a bound and nothing to be beaten.
BASELINE_KINDS = ("asr", "cascade", "classifier", "keyword_search", "speechverse")
# Of tasks that name none, by their kind of answer; accuracy of a text is the share of answers that are it.
DEFAULT_METRICS = {"text": "accuracy", "label": "accuracy", "keywords": "keyword_f1", "slots": "slu_f1"}


@dataclass(frozen=True)
class SuiteRow:
    """One question put to a test set.

    Args:
        id (`str`): unique in its suite.
        data (`dict`): where the recordings and their answers are from: an entry as in a configuration's `test_data`, of one
            view of a corpus (or several to be asked together, `joint`), or a manifest.
        name (`str`, *optional*): how reports call it; by default its id.
        prompt (`int`, *optional*, defaults to 0): which of the wordings, counted from 0; `data.prompts` says of which.
        instruction (`str`, *optional*): words of its own in place of the task's; the answer is then free.
        decoding (`str`, *optional*, defaults to `"constrained"`): `constrained` holds the answer to its task's form where it
            has one, `free` does not, `scored` takes the likeliest label.
        describe (`bool`, *optional*, defaults to `False`): whether classes are listed with their descriptions.
        hints (`list[str]`, *optional*): words that the answer may hold.
        metric (`str`, `list[str]` or `dict`, *optional*): one metric or several; of a joint row by task id. By default the
            tasks' own.
        language (`str`, *optional*): two-letter code of the language of the answers, by which a word error rate normalises
            them; by default English.
        passes (`dict`, *optional*): what a free answer has to be like, see [`criteria`]; in place of a metric.
        paper (`dict`, *optional*): figures of the paper to stand beside, by system, as printed; of a joint row by task id, of
            a row with several metrics by metric.
        paper_set (`str`, *optional*): the test set that these figures are of, where it is not the row's own.
        baseline (`str`, *optional*): the kind of system that is to be beaten here, one of `BASELINE_KINDS`: reports
            count how often it is. `speechverse` is another SpeechVerse model.
    """

    id: str
    data: dict
    name: str | None = None
    prompt: int = 0
    instruction: str | None = None
    decoding: str = "constrained"
    describe: bool = False
    hints: list[str] | None = None
    metric: str | list[str] | dict[str, str] | None = None
    language: str | None = None
    passes: dict | None = None
    paper: dict = field(default_factory=dict)
    # Not in a row's representation, by which `run.py` knows kept answers again: neither is part of what is asked.
    paper_set: str | None = field(default=None, repr=False)
    baseline: str | None = field(default=None, repr=False)

    def __post_init__(self):
        if self.decoding not in DECODING:
            raise ValueError(f"key decoding is {self.decoding!r}; it is one of {', '.join(DECODING)}.")
        if self.prompt < 0:
            raise ValueError(f"key prompt is {self.prompt}; it is the number of a wording, at least 0.")
        if self.passes is not None:
            if self.metric is not None or self.instruction is None:
                raise ValueError("key passes is for a row with an instruction of its own, and in place of a metric.")
            parse_criteria(self.passes)
        if self.baseline is not None and self.baseline not in BASELINE_KINDS:
            raise ValueError(
                f"key baseline is {self.baseline!r}; it is a kind of system: one of {', '.join(BASELINE_KINDS)}."
            )
        if self.paper_set is not None and not self.paper:
            raise ValueError(f"key paper_set is {self.paper_set!r}; it says what the figures of key paper are of.")
        for metric in self._named_metrics():
            self.load_metric(metric)

    def _named_metrics(self) -> Iterable[str]:
        if isinstance(self.metric, dict):
            return self.metric.values()
        return [self.metric] if isinstance(self.metric, str) else self.metric or []

    def load_metric(self, name: str) -> CorpusMetric:
        """A metric, told what the row says of it."""
        return load_metric(name, **({"language": self.language} if self.language and name == "wer" else {}))

    def paper_figures(self, task: str | None, metric: str) -> dict[str, float]:
        """The paper's figures of one thing that is scored, see [`~SuiteRow.scored_by`]."""
        if task is not None:
            return self.paper.get(task, {})
        return self.paper.get(metric, {}) if isinstance(self.metric, list) else self.paper

    @property
    def source(self) -> ManifestSource | CorpusSource:
        """Where its recordings are from.

        Raises:
            FileNotFoundError: if there is no such corpus.
            ValueError: if the entry has a mistake.
        """
        return parse_source(self.data, "data")

    def scored_by(self, sample: Sample, bank: TaskBank) -> list[tuple[str | None, str]]:
        """What is scored of an answer, and by what: pairs of a task's id (`None`: the whole answer) and a metric's name.

        Args:
            sample ([`Sample`]): one of the row's.
            bank ([`TaskBank`]): the tasks, with their metrics.

        Raises:
            ValueError: if `metric` is not of the row's kind.
        """
        if self.passes is not None:
            return [(None, PASS_RATE)]
        if isinstance(sample, JointSample):
            metrics = self.metric or {task: _metric_of(task, bank) for task in sample.tasks}
            if not isinstance(metrics, dict) or (unknown := metrics.keys() - set(sample.tasks)):
                named = "" if not isinstance(metrics, dict) else f", not of {', '.join(sorted(unknown))}"
                raise ValueError(
                    f"row {self.id}: key metric is a mapping of the tasks {', '.join(sample.tasks)} to metrics{named}."
                )
            return list(metrics.items())
        if isinstance(self.metric, dict):
            raise ValueError(f"row {self.id}: key metric is a mapping, which is for tasks that are asked together.")
        if self.metric is not None:
            return [(None, metric) for metric in self._named_metrics()]
        return [(None, _metric_of(sample.task, bank))]


def _metric_of(task: str | None, bank: TaskBank) -> str:
    if task not in bank:
        return DEFAULT_METRICS["text"]
    return bank[task].metric or DEFAULT_METRICS[bank[task].answer_type]


@dataclass(frozen=True)
class Suite:
    """The rows of a table.

    Args:
        name (`str`): of its file.
        title (`str`): what it shows.
        rows (`list[SuiteRow]`): what is asked.
        source (`str`, *optional*): where the figures beside them are from.
        task_files (`list[str]`, *optional*): YAML files with tasks of one's own.
    """

    name: str
    title: str
    rows: list[SuiteRow]
    source: str | None = None
    task_files: list[str] = field(default_factory=list)

    @property
    def tasks(self) -> TaskBank:
        """The tasks of its files, and the shipped ones."""
        return all_tasks(TaskBank.from_yaml(*map(expand_variables, self.task_files)))


@dataclass(frozen=True)
class LoadedRow:
    """A row with its samples.

    Args:
        row ([`SuiteRow`]): the row.
        samples (`list[Sample]`): what is asked about, all of one view; never empty.
        skipped (`list[dict]`): what could not be asked about, and why.
        scored (`list[tuple[str | None, str]]`): see [`~SuiteRow.scored_by`].
    """

    row: SuiteRow
    samples: list[Sample]
    skipped: list[dict]
    scored: list[tuple[str | None, str]]

    def is_in_words(self, sample: Sample) -> bool:
        """Whether a sample is asked about in words that are no task's, so that no task holds or reads the answer."""
        literal = sample.values is None and not isinstance(sample, JointSample)
        return literal or self.row.instruction is not None

    def instruction(self, sample: Sample) -> str:
        """The words in which a sample is asked about."""
        if self.row.instruction is not None:
            return self.row.instruction
        if isinstance(sample, JointSample):
            parts = [part.instruction(self._wording(part), self.row.describe) for part in sample.parts]
            return sample.joint.instruction(parts)
        return sample.instruction(self._wording(sample), self.row.describe)

    def prompt(self, sample: Sample) -> str | list[str]:
        """The wordings of an instruction, not filled in: of a joint sample one for each task."""
        if isinstance(sample, JointSample):
            return [self._wording(part) for part in sample.parts]
        return self._wording(sample)

    def _wording(self, sample: Sample) -> str:
        return sample.instructions[self.row.prompt]


def shipped_suites() -> list[str]:
    """Names of the suites in this package."""
    return sorted(file.stem for file in SUITES_FOLDER.glob("*.yaml"))


def load_suite(name: str | Path) -> Suite:
    """Reads a suite.

    Args:
        name (`str` or `Path`): of a shipped one, such as `mini_table2`, or the path of a YAML file like theirs.

    Raises:
        FileNotFoundError: if there is none; the message names the shipped ones.
        ValueError: if it has a mistake.
    """
    file = Path(name)
    if not file.is_file() and file.parent == Path():  # a path that leads nowhere must not end at a shipped one
        file = SUITES_FOLDER / f"{file.name.removesuffix('.yaml')}.yaml"
    if not file.is_file():
        raise FileNotFoundError(
            f"There is no suite {name}; there are {', '.join(shipped_suites())}, and files like them."
        )
    try:
        values = yaml.load(file.read_text(encoding="utf-8"), NumberLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{file} holds {type(values).__name__}; a suite is a mapping with title and rows.")
    # A key that begins with a dot holds what several rows share by YAML's anchors.
    values = {key: value for key, value in values.items() if not str(key).startswith(".")}
    if not isinstance(values.get("rows"), list) or not values["rows"]:
        raise ValueError(f"{file}: key rows is {values.get('rows')!r}; it is a list of rows.")
    rows = [build(SuiteRow, entry, f"{file}, rows[{index}]") for index, entry in enumerate(values.pop("rows"))]
    suite = build(Suite, values | {"name": file.stem, "rows": rows}, str(file))
    seen = set()
    for index, row in enumerate(suite.rows):
        place = f"{file}, rows[{index}]"
        if row.id in seen:
            raise ValueError(f"{place}: key id is {row.id!r}, as in a row before it.")
        seen.add(row.id)
        parse_source(row.data, f"{place}, data")
    return suite


def suite_of_config(config, name: str) -> Suite:
    """The questions of a training configuration's `test_data`, or of its `eval_data` where it has none; their tasks are its
    `tasks`.

    Args:
        config ([`RunConfig`]): the configuration.
        name (`str`): what to call the suite.

    Raises:
        ValueError: if it has neither.
    """
    sources = config.test_data or config.eval_data
    if not sources:
        raise ValueError(f"{name} has neither test_data nor eval_data: there is nothing to ask.")
    rows = [row for source in sources for row in _rows_of(source)]
    counts: dict[str, int] = {}
    for index, row in enumerate(rows):
        counts[row.id] = counts.get(row.id, 0) + 1
        if counts[row.id] > 1:
            rows[index] = dataclasses.replace(row, id=f"{row.id} {counts[row.id]}")
    return Suite(name, f"What {name} tests", rows)


def _rows_of(source: ManifestSource | CorpusSource) -> list[SuiteRow]:
    """A row for each view of a corpus, and each of its joint ones; one for a manifest, whose tasks are not known yet."""
    data = {key: value for key, value in dataclasses.asdict(source).items() if value is not None}
    if isinstance(source, ManifestSource):
        return [SuiteRow(source.name, data)]
    views, joint = load_corpus(source.corpus).views, data.pop("joint", [])
    tasks = [name for name, view in views.items() if view.default] if source.tasks is None else source.tasks
    rows = [SuiteRow(f"{source.name}/{task}", data | {"tasks": [task]}) for task in tasks]
    return rows + [
        SuiteRow(f"{source.name}/{'+'.join(several)}", data | {"tasks": [], "joint": [several]}) for several in joint
    ]


def load_rows(
    suite: Suite, bank: TaskBank, processor=None, limit: int | None = None, heard: FactsCache | None = None
) -> list[LoadedRow]:
    """Reads the samples of every row. A row with several views or tasks becomes one row for each.

    Args:
        suite ([`Suite`]): what is asked.
        bank ([`TaskBank`]): the tasks, the model's own first.
        processor ([`SpeechVerseProcessor`], *optional*): of a model that cannot take every recording.
        limit (`int`, *optional*): at most so many samples of each row, from all over it.
        heard ([`FactsCache`], *optional*): what is known of recordings already.

    Raises:
        FileNotFoundError: if a corpus or a manifest is not there.
        ImportError: if a package that a corpus needs is not installed.
        ValueError: if nothing is left of a row, or of one of its views; or it asks for something that there is not, or has
            figures of something that it does not score.
    """
    # Only what cannot be asked is left out: long answers and silence are part of a test.
    rules = FilterRules(processor, max_audio_tokens=None, max_label_tokens=None, silence=None)
    views = [view for row in suite.rows for view in _views_of(row, bank, limit)]
    samples = [sample for _, of_view, _ in views for sample in of_view]
    checked = iter(check_samples(samples, rules, cache=heard))
    loaded = [_checked_row(row, [next(checked) for _ in of_view], rejected, bank) for row, of_view, rejected in views]
    ids = [one.row.id for one in loaded]
    if twice := [name for index, name in enumerate(ids) if name in ids[:index]]:
        raise ValueError(f"two rows are called {twice[0]}, one of them after one of its views: give another id.")
    return loaded


def _views_of(row: SuiteRow, bank: TaskBank, limit: int | None) -> Iterator[tuple[SuiteRow, list[Sample], list[dict]]]:
    """A row for each view, or task, of a row's samples, with those and with what was rejected of it."""
    samples, rejected = load_source(row.source, bank)
    views: dict[str | None, list[Sample]] = {}
    for sample in samples:
        views.setdefault(sample.name, []).append(sample)
    for name, of_view in views.items():
        view = row if len(views) == 1 else dataclasses.replace(row, id=f"{row.id}/{name}")
        # A rejected row names its view, or none where it is of use to none.
        yield (
            view,
            _spread(of_view, limit),
            [left for left in rejected if len(views) == 1 or left["task"] in (name, None)],
        )


def _checked_row(row: SuiteRow, checked: list[CheckedSample], rejected: list[dict], bank: TaskBank) -> LoadedRow:
    """A row with those of its samples that can be asked about, and judged."""
    try:
        kept = [dataclasses.replace(one.sample, duration=round(one.seconds, 3)) for one in usable(checked)]
    except ValueError as error:
        raise ValueError(f"row {row.id}: {error}") from error
    samples, unjudged = _judgeable(row, kept)
    skipped = rejected + [one.as_row() for one in checked if one.fault is not None] + unjudged
    _refuse_missing_wording(row, samples)
    scored = row.scored_by(samples[0], bank)
    _refuse_wrong_figures(row, scored)
    return LoadedRow(row, samples, skipped, scored)


def _spread(samples: list, limit: int | None) -> list:
    """At most `limit` of the samples, from all over them."""
    if limit is None or len(samples) <= limit:
        return samples
    return [samples[index * len(samples) // limit] for index in range(limit)]


def _judgeable(row: SuiteRow, samples: list[Sample]) -> tuple[list[Sample], list[dict]]:
    """The samples that a row's criteria can be applied to, and the others, as a report lists them."""
    if row.passes is None:
        return samples, []
    criteria = parse_criteria(row.passes)
    lacking = [criteria.lacks(sample) for sample in samples]
    kept = [sample for sample, lack in zip(samples, lacking, strict=True) if lack is None]
    if not kept:
        raise ValueError(f"row {row.id}: no sample can be judged; the first: {lacking[0]}.")
    return kept, [
        {"audio": sample.key, "reason": f"cannot be judged: {lack}", "task": sample.task}
        for sample, lack in zip(samples, lacking, strict=True)
        if lack is not None
    ]


def _refuse_missing_wording(row: SuiteRow, samples: list[Sample]) -> None:
    for sample in samples if row.instruction is None else []:
        for part in sample.parts if isinstance(sample, JointSample) else [sample]:
            if row.prompt >= len(part.instructions):
                raise ValueError(
                    f"row {row.id}: key prompt is {row.prompt}; {part.name} has {len(part.instructions)} wordings, from 0."
                )


def _refuse_wrong_figures(row: SuiteRow, scored: list[tuple[str | None, str]]) -> None:
    parts = {task or metric for task, metric in scored if task is not None or isinstance(row.metric, list)}
    if unknown := sorted(row.paper.keys() - parts) if parts else []:
        raise ValueError(
            f"row {row.id}: key paper has figures of {unknown[0]}; what is scored are {', '.join(sorted(parts))}."
        )
    for task, metric in scored:
        figures = row.paper_figures(task, metric)
        if not isinstance(figures, dict) or not all(type(figure) in (int, float) for figure in figures.values()):
            raise ValueError(
                f"row {row.id}: key paper holds {figures!r}; it is a mapping of systems to their figures."
            )
