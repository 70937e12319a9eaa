"""What runs of an evaluation left behind, read, recomputed sample by sample, and set side by side."""

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from speechverse.modeling_speechverse.base_checkpoints import fingerprint

from .corpus_metric import CorpusMetric, load_metric
from .intervals import Difference, Interval, bootstrap, compare
from .results import RESULTS_NAME
from .sample_log import SAMPLES_NAME, read_samples


# Sums are taken in another order here than where they were written.
TOLERANCE = {"rel_tol": 1e-6, "abs_tol": 1e-9}

SystemKey = tuple[str, str, str]  # kind, name, fingerprint
PartKey = tuple[str, str | None, str]  # ids of a row and of the task that is scored, and by which metric

# Of fewer, so few sets can be drawn that an interval is far too narrow: of two, half the draws are one of them alone.
ENOUGH_SPEAKERS = 10


@dataclass(frozen=True)
class Part:
    """The answers of one system to one row of a suite, or to one of the tasks of a joint row, scored by one metric.

    Args:
        entry (`dict`): what `results.json` says of it; every figure in it has been recomputed from the samples.
        metric ([`CorpusMetric`]): what it is scored by.
        lines (`list[dict]`): its samples, as `samples.jsonl` has them.
        answers, references (`list`): typed; an answer is `None` where it could not be read.
        interval ([`Interval`], *optional*): the score; `None` where there are no samples.
    """

    entry: dict
    metric: CorpusMetric
    lines: list[dict]
    answers: list
    references: list
    interval: Interval | None

    @property
    def key(self) -> PartKey:
        return self.entry["row"], self.entry["scored"], self.entry["metric"]

    @property
    def speakers(self) -> list[str | None]:
        return [line["speaker"] for line in self.lines]

    @property
    def speaker_count(self) -> int | None:
        """How many people speak; `None` where that is not known of every sample."""
        return len(set(self.speakers)) if self.lines and all(self.speakers) else None

    @property
    def has_few_speakers(self) -> bool:
        return self.speaker_count is not None and self.speaker_count < ENOUGH_SPEAKERS

    @property
    def scores(self) -> list[float]:
        """Of each sample by itself, unscaled; NaN where it has none."""
        written = [line["scores"][score_name(self.entry, line)] for line in self.lines]
        return [math.nan if score is None else score for score in written]

    def on(self, chosen: list[int]) -> Interval:
        """The score on some of the samples alone."""
        statistics = self.metric.statistics(*(_pick(each, chosen) for each in (self.answers, self.references)))
        return bootstrap(self.metric, statistics, _pick(self.speakers, chosen))


@dataclass(frozen=True)
class Run:
    """One system's results on one suite.

    Args:
        folder (`Path`): where they were.
        results (`dict`): `results.json`.
        parts (`dict`): [`Part`]s by row, scored task and metric, in the suite's order.
    """

    folder: Path
    results: dict
    parts: dict[PartKey, Part]

    @property
    def suite(self) -> str:
        return self.results["suite"]

    @property
    def system(self) -> SystemKey:
        system = self.results["system"]
        return system["kind"], system["name"], system.get("fingerprint") or self.results.get("fingerprint") or ""


@dataclass(frozen=True)
class Comparison:
    """How one system does on a row beside another, on the samples that both answered.

    Args:
        difference ([`Difference`]): this one's score minus the other's, paired.
        shared (`int`): the samples that both answered.
        partial (`bool`): whether one of them answered others, too.
        outcome (`str`): `won`, `tied` where the interval of the difference holds 0, or `lost`.
    """

    difference: Difference
    shared: int
    partial: bool
    outcome: str


@dataclass
class Suite:
    """The runs of one suite: ours, where there is one, and the others in the order in which they were given."""

    name: str
    title: str
    source: str | None = None
    ours: Run | None = None
    others: list[Run] = field(default_factory=list)

    @property
    def runs(self) -> list[Run]:
        return [self.ours, *self.others] if self.ours else self.others

    @property
    def columns(self) -> list[list[Run]]:
        """The others, those of one kind together that were asked different rows, such as a classifier for each task."""
        columns: list[list[Run]] = []
        for run in self.others:
            for column in columns:
                apart = all(run.parts.keys().isdisjoint(other.parts) for other in column)
                if apart and column[0].system[0] == run.system[0]:
                    column.append(run)
                    break
            else:
                columns.append([run])
        return columns

    @property
    def keys(self) -> list[PartKey]:
        """Every row that any of the systems was asked, as the first of them orders them."""
        return list(dict.fromkeys(key for run in self.runs for key in run.parts))


def score_name(entry: dict, line: dict) -> str:
    """Under which name a sample's line has the score of an entry: a joint row has several."""
    return f"{entry['scored']}/{entry['metric']}" if isinstance(line["reference"], dict) else entry["metric"]


def read_run(folder: str | Path) -> Run:
    """Reads a folder that `evaluation/run.py` wrote, and recomputes every figure in it.

    Raises:
        FileNotFoundError: if it is no such folder.
        ValueError: if a file cannot be read, or the two disagree.
    """
    folder = Path(folder)
    if not (folder / RESULTS_NAME).is_file():
        raise FileNotFoundError(f"{folder} has no {RESULTS_NAME}: it is not what evaluation/run.py writes.")
    try:
        results = json.loads((folder / RESULTS_NAME).read_text(encoding="utf-8"))
        by_row: dict[str, list[dict]] = {entry["row"]: [] for entry in results["results"]}
        for line in read_samples(folder):
            if line["row"] not in by_row:
                raise ValueError(f"{folder}: {SAMPLES_NAME} has a row {line['row']!r} that {RESULTS_NAME} lacks.")
            by_row[line["row"]].append(line)
        parts = [_read_part(entry, by_row[entry["row"]], results["seed"], folder) for entry in results["results"]]
        run = Run(folder, results, {part.key: part for part in parts})
        _ = run.suite, run.system
    except json.JSONDecodeError as error:
        raise ValueError(f"{folder}: a file is no JSON ({error}).") from error
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{folder}: {RESULTS_NAME} or {SAMPLES_NAME} lacks {error}: is it of another version?"
        ) from error
    return run


def _read_part(entry: dict, lines: list[dict], seed: int, folder: Path) -> Part:
    language = entry.get("language") if entry["metric"] == "wer" else None
    metric = load_metric(entry["metric"], **({"language": language} if language else {}))
    answers, references = [], []
    for line in lines:
        answer, reference = line["answer"], line["reference"]
        if isinstance(reference, dict):  # of several tasks at once
            answer, reference = (answer or {}).get(entry["scored"]), reference[entry["scored"]]
        answers.append(answer)
        references.append(reference)
    place = f"{folder}, row {entry['row']!r}, {entry['metric']} of {entry['scored']!r}"
    _agree(place, "samples", entry["samples"], len(lines))
    if not lines:
        return Part(entry, metric, [], [], [], None)
    statistics = metric.statistics(answers, references)
    interval = bootstrap(metric, statistics, [line["speaker"] for line in lines], seed=seed)
    for name in ("value", "low", "high"):
        _agree(place, name, entry[name], getattr(interval, name))
    written = [line["scores"][score_name(entry, line)] for line in lines]
    for line, score, recomputed in zip(lines, written, metric.value(statistics), strict=True):
        _agree(f"{place}, sample {line['index']}", "score", score, float(recomputed))
    return Part(entry, metric, lines, answers, references, interval)


def _agree(place: str, name: str, written: float, recomputed: float) -> None:
    """Raises unless a figure is what the samples give; two undefined figures agree."""
    both = [math.nan if figure is None else figure for figure in (written, recomputed)]
    if not (math.isclose(*both, **TOLERANCE) or all(map(math.isnan, both))):
        raise ValueError(
            f"{place}: {name} is {written} where it is written, but the samples of {SAMPLES_NAME} give {recomputed}. "
            "One of the files was changed, or the metrics were: run the evaluation again."
        )


def group(runs: list[Run]) -> list[Suite]:
    """Runs by suite. The first run's system is ours in all of them.

    Raises:
        ValueError: if a system has two runs of one suite, or two runs of a suite do not score the same.
    """
    suites: dict[str, Suite] = {}
    for run in runs:
        suite = suites.setdefault(
            run.suite, Suite(run.suite, run.results.get("title") or run.suite, run.results.get("source"))
        )
        for other in suite.runs:
            if other.system == run.system:
                raise ValueError(f"{other.folder} and {run.folder} are the same system on the suite {run.suite!r}.")
            _refuse_other_language(run, other)
        if run.system == runs[0].system:
            suite.ours = run
        else:
            suite.others.append(run)
    return list(suites.values())


def _refuse_other_language(run: Run, other: Run) -> None:
    for key in run.parts.keys() & other.parts.keys():
        if run.parts[key].entry.get("language") != other.parts[key].entry.get("language"):
            raise ValueError(f"{run.folder} and {other.folder} score the row {key[0]!r} as of two languages.")


def set_side_by_side(ours: Part, other: Part) -> Comparison | None:
    """Compares two systems on one row; `None` where no sample was answered by both.

    Raises:
        ValueError: if a sample has one answer in this run's references, and another in the other's.
    """
    places = {name: index for index, name in enumerate(_names(other.lines))}
    pairs = [(index, places[name]) for index, name in enumerate(_names(ours.lines)) if name in places]
    if not pairs:
        return None
    chosen, others = map(list, zip(*pairs, strict=True))
    references = _pick(ours.references, chosen)
    for index, reference, same in zip(chosen, references, _pick(other.references, others), strict=True):
        if reference != same:
            line = ours.lines[index]
            raise ValueError(
                f"row {line['row']!r}, sample {line['key']!r}: the truth is {reference!r} in one run and {same!r} in "
                "another; they cannot be compared."
            )
    metric = ours.metric
    difference = compare(
        metric,
        metric.statistics(_pick(ours.answers, chosen), references),
        metric.statistics(_pick(other.answers, others), references),
        _pick(ours.speakers, chosen),
        seed=0,
    )
    partial = len(pairs) < max(len(ours.lines), len(other.lines))
    return Comparison(difference, len(pairs), partial, _outcome(difference, metric.higher_is_better))


def compare_all(suite: Suite) -> dict[PartKey, dict[int, Comparison]]:
    """Ours beside each of the others, by row: place among the others -> comparison, where there is any."""
    found: dict[PartKey, dict[int, Comparison]] = {}
    for key, ours in suite.ours.parts.items() if suite.ours else ():
        beside = {index: run.parts.get(key) for index, run in enumerate(suite.others)}
        compared = {index: set_side_by_side(ours, part) for index, part in beside.items() if part}
        found[key] = {index: comparison for index, comparison in compared.items() if comparison}
    return found


# What is to be beaten.


@dataclass(frozen=True)
class Duel:
    """A row that names a kind of system that is to be beaten, and how ours does.

    Args:
        part ([`Part`]): ours.
        kind (`str`): of the system.
        place (`int`, *optional*): of the system among the suite's others; `None` where none of its kind was asked
            the row.
        outcome (`str`, *optional*): `won`, `tied` or `lost` against it.
    """

    part: Part
    kind: str
    place: int | None = None
    outcome: str | None = None

    @property
    def task(self) -> str:
        return self.part.entry["scored"] or self.part.entry["row"]


def find_duels(suite: Suite, comparisons: dict[PartKey, dict[int, Comparison]]) -> dict[PartKey, Duel]:
    """The rows of ours that name what is to be beaten: of several systems of that kind the one that does best."""
    duels = {}
    for key, compared in comparisons.items():
        part = suite.ours.parts[key]
        kind = part.entry.get("baseline")
        if not kind or not part.lines:
            continue
        sign = 1 if part.metric.higher_is_better else -1
        ahead = {place: sign * one.difference.value for place, one in compared.items()}
        rivals = [
            place
            for place in ahead
            if suite.others[place].system[0] == kind and not math.isnan(ahead[place])  # which nobody has won
        ]
        best = min(rivals, key=ahead.get, default=None)
        duels[key] = Duel(part, kind, best, None if best is None else compared[best].outcome)
    return duels


@dataclass(frozen=True)
class TaskDuel:
    """A task's rows that name what is to be beaten. It is won, or held, where more than half of those rows are that
    were asked of both.

    Args:
        duels (`list[Duel]`): of one task.
    """

    duels: list[Duel]

    @property
    def outcomes(self) -> list[str]:
        return [duel.outcome for duel in self.duels if duel.outcome]

    @property
    def is_won(self) -> bool:
        return 2 * self.outcomes.count("won") > len(self.outcomes)

    @property
    def is_held(self) -> bool:
        """Whether it is won or tied."""
        return 2 * self.outcomes.count("lost") < len(self.outcomes)


def by_task(duels: list[Duel]) -> list[TaskDuel]:
    """Duels by what is scored in them, in their order."""
    tasks: dict[str, list[Duel]] = {}
    for duel in duels:
        tasks.setdefault(duel.task, []).append(duel)
    return [TaskDuel(of_task) for of_task in tasks.values()]


def _outcome(difference: Difference, higher_is_better: bool) -> str:
    if difference.tie:
        return "tied"
    return "won" if (difference.value > 0) == higher_is_better else "lost"


def _names(lines: list[dict]) -> list[tuple]:
    """What tells a row's samples apart in any run: one recording may be asked about several times."""
    seen: Counter = Counter()
    names = []
    for line in lines:
        name = (line["corpus"], line["split"], line["key"])
        names.append((*name, seen[name]))
        seen[name] += 1
    return names


def _pick(values: list, chosen: list[int]) -> list:
    return [values[index] for index in chosen]


# What is looked at beside the scores.

DURATION_EDGES = (0, 2, 4, 8, 15, 30, math.inf)  # s
SNR_EDGES = (-math.inf, 0, 5, 10, 15, 20, math.inf)  # dB
NO_NOISE = "clean"
UNREAD = "(not read)"
OTHERS = "(others)"
MAX_CLASSES = 20  # of a confusion matrix


@dataclass(frozen=True)
class Bin:
    """The samples whose duration or SNR lies between two bounds: `low <= x < high`.

    Args:
        name (`str`): such as `2-4`.
        samples (`int`): how many.
        intervals (`list[Interval | None]`): each system's score on them.
    """

    name: str
    samples: int
    intervals: list[Interval | None]


def bins_by(fact: str, parts: list[Part | None]) -> list[Bin]:
    """Scores by `duration` or `snr`, of several systems on one row; bins without samples are left out.

    Recordings without noise, so far as is known, are a bin of their own, where there are others; those of unknown duration are
    left out. Where nothing is known of any recording there are no bins.
    """
    edges = DURATION_EDGES if fact == "duration" else SNR_EDGES
    bounds = list(zip(edges, edges[1:], strict=False))
    wanted = [(_bin_name(low, high), low, high) for low, high in bounds]
    if all(line[fact] is None for part in parts if part for line in part.lines):
        return []
    if fact == "snr":
        wanted.append((NO_NOISE, None, None))
    bins = []
    for name, low, high in wanted:
        chosen = [_in_bin(part, fact, low, high) if part else [] for part in parts]
        if any(chosen):
            intervals = [part.on(indices) if indices else None for part, indices in zip(parts, chosen, strict=True)]
            bins.append(Bin(name, max(map(len, chosen)), intervals))
    return bins


def _in_bin(part: Part, fact: str, low: float | None, high: float | None) -> list[int]:
    facts = [line[fact] for line in part.lines]
    if low is None:
        return [index for index, value in enumerate(facts) if value is None]
    return [index for index, value in enumerate(facts) if value is not None and low <= value < high]


def _bin_name(low: float, high: float) -> str:
    if math.isinf(low):
        return f"< {high:g}"
    return f"≥ {low:g}" if math.isinf(high) else f"{low:g}-{high:g}"


@dataclass(frozen=True)
class Confusions:
    """What was taken for what.

    Args:
        truths, answers (`list[str]`): names of rows and columns. The columns begin with the rows' classes.
        counts (`np.ndarray` of shape `(truths, answers)`): samples.
        mistakes (`list[tuple[str, str, int]]`): truth, answer and count, the most frequent first.
    """

    truths: list[str]
    answers: list[str]
    counts: np.ndarray
    mistakes: list[tuple[str, str, int]]


def has_labels(part: Part) -> bool:
    """Whether a row's answers are classes."""
    by_class = part.entry["metric"] in ("accuracy", "uar")
    return bool(part.lines) and by_class and all(isinstance(reference, str) for reference in part.references)


def count_confusions(part: Part) -> Confusions:
    """Classes in the order of the row's own list; the rarest of too many share a row and a column."""
    totals = Counter(part.references)
    known = list(dict.fromkeys([*(part.entry.get("classes") or sorted(totals)), *sorted(totals)]))
    answered = {answer for answer in part.answers if answer is not None}
    known += sorted(answered - set(known))
    present = [label for label in known if label in totals or label in answered]
    if len(present) > MAX_CLASSES:
        frequent = sorted(present, key=lambda label: -totals[label])[: MAX_CLASSES - 1]
        present = [label for label in present if label in frequent] + [OTHERS]
    truths = [label for label in present if label in totals or label == OTHERS]
    answers = truths + [label for label in present if label not in truths]
    if None in part.answers:
        answers.append(UNREAD)
    counts = np.zeros((len(truths), len(answers)), dtype=int)
    for truth, answer in zip(part.references, part.answers, strict=True):
        truth = truth if truth in present else OTHERS
        answer = UNREAD if answer is None else answer if answer in present else OTHERS
        counts[truths.index(truth), answers.index(answer)] += 1
    pairs = Counter(zip(part.references, part.answers, strict=True)).most_common()
    mistakes = [(truth, UNREAD if answer is None else answer, n) for (truth, answer), n in pairs if truth != answer]
    return Confusions(truths, answers, counts, mistakes)


@dataclass(frozen=True)
class Mistake:
    """One sample that went wrong.

    Args:
        suite (`str`): title of the suite.
        part ([`Part`]): its row.
        index (`int`): its place among the row's lines.
        badness (`float`): 0 where it is right, 1 where it is all wrong; a word error rate may exceed 1.
    """

    suite: str
    part: Part
    index: int
    badness: float

    @property
    def line(self) -> dict:
        return self.part.lines[self.index]


def find_worst(suites: list[Suite], count: int) -> list[Mistake]:
    """Our worst answers; none of them is right. Rows take turns: first the worst of each by score, then the second of
    each and so on, the longest recordings first. A recording is shown once."""
    rows = [turn for suite in suites if suite.ours for turn in _mistakes_by_row(suite)]
    worst, seen = [], set()
    while len(worst) < count and any(rows):
        turn = []
        for mistakes in rows:
            while mistakes:
                mistake = mistakes.pop(0)
                if mistake.line["audio"] not in seen:
                    seen.add(mistake.line["audio"])
                    turn.append(mistake)
                    break
        worst += sorted(turn, key=_order_of_badness)
    return worst[:count]


def _mistakes_by_row(suite: Suite) -> list[list[Mistake]]:
    """Each row's wrong answers, by any of its metrics and of any of its tasks; the worst first."""
    rows: dict[str, list[Mistake]] = {}
    for part in suite.ours.parts.values():
        mistakes = rows.setdefault(part.entry["row"], [])
        for index, score in enumerate(part.scores):
            if part.answers[index] == part.references[index]:
                continue  # of few words, whose BLEU is 0 all the same
            badness = 1 - score * part.metric.scale / 100 if part.metric.higher_is_better else score
            if badness > 1e-9:  # an undefined score is neither
                mistakes.append(Mistake(suite.title, part, index, badness))
    return [sorted(mistakes, key=_order_of_badness) for mistakes in rows.values()]


def _order_of_badness(mistake: Mistake) -> tuple:
    return -mistake.badness, -(mistake.line["duration"] or 0)


LAYER_MIX = "multi_modal_projector.layer_mix.weights"


@dataclass(frozen=True)
class LayerMix:
    """What a model mixes its encoder's layers by.

    Args:
        weights (`list[float]`, *optional*): of the layers, the first layer first.
        fault (`str`): why there are none.
    """

    weights: list[float] | None
    fault: str = ""


def read_layer_mix(run: Run) -> LayerMix | None:
    """The layer mix of a run's model; `None` if it has none, or its folder is not here."""
    folder = Path(run.results["system"].get("model") or "")
    if run.system[0] != "speechverse" or not (folder / "config.json").is_file():
        return None
    try:
        if json.loads((folder / "config.json").read_text(encoding="utf-8")).get("layer_mix") != "learned":
            return None
        if fingerprint(folder) != run.system[2]:
            return LayerMix(None, "the weights in its folder are not those that were measured")
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():
                    if name.endswith(LAYER_MIX):
                        return LayerMix(tensors.get_tensor(name).float().tolist())
    except (OSError, ValueError, SafetensorError):  # whose words may name folders of this machine
        return LayerMix(None, "the files in its folder cannot be read")
    return LayerMix(None, "the files in its folder hold no weights of it")
