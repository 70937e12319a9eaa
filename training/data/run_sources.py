"""The entries of `train_data`, `eval_data` and `test_data`: a manifest, or a corpus."""

from dataclasses import dataclass, replace

from .corpus import Corpus, load_corpus
from .corpus_samples import PROMPTS, load_corpus_samples, values_of
from .manifest import ManifestSource, load_samples
from .sample import Sample
from .sources.base import check_patterns
from .strict import build


LICENCES = ("all", "permissive")
PUBLISHED_FACTS = ("title", "licence", "permissive", "speech")  # of a corpus, in the record of a run


@dataclass(frozen=True)
class Exclusion:
    """Rows to be left out, since another corpus has them too.

    Args:
        corpus (`str`): the other corpus.
        split (`str` or `list[str]`): the splits of it that hold them.
        column (`str`): of both corpora, such as `text`: rows with the same there are the same, whatever their case.
    """

    corpus: str
    split: str | list[str]
    column: str

    def __post_init__(self):
        for split in self.splits:
            check_split(load_corpus(self.corpus), split)
        check_column(load_corpus(self.corpus), self.column)

    @property
    def splits(self) -> list[str]:
        return [self.split] if isinstance(self.split, str) else self.split

    def values(self) -> dict[str, str]:
        """What the other corpus has in the column -> where, such as `slurp/test`.

        Raises:
            FileNotFoundError: if that corpus is not there.
            ValueError: if it has nothing in the column.
        """
        corpus = load_corpus(self.corpus)
        return {
            value: f"{corpus.id}/{split}" for split in self.splits for value in values_of(corpus, split, self.column)
        }


def check_split(corpus: Corpus, split: str) -> None:
    splits = dict.fromkeys(split for source in corpus.built_sources for split in source.splits)
    if split not in splits:
        raise ValueError(f"corpus {corpus.id} has no split {split!r}; it has {', '.join(splits)}.")


def check_column(corpus: Corpus, column: str) -> None:
    if column not in corpus.columns:
        raise ValueError(f"corpus {corpus.id} has no column {column!r}; it has {', '.join(sorted(corpus.columns))}.")


@dataclass(frozen=True)
class CorpusSource:
    """A corpus and what to take from it.

    Args:
        corpus (`str`): id of a shipped corpus, or the path of a YAML file like theirs.
        split (`str`): one of the corpus's splits.
        tasks (`list[str]`, *optional*): which of the corpus's tasks; by default all but those that its file keeps for
            tests of the unseen, or for a choice of classes. `[]` takes those in `joint` alone.
        limit (`int`, *optional*): so many samples of each of these, drawn from the whole split, the same every time.
        prompts (`str`, *optional*, defaults to `"trained"`): `held_out` asks in wordings that are never trained on.
        joint (`list[list[str]]`, *optional*): tasks to be asked and answered together, such as `[[asr, ic]]`: one more
            sample of every row that serves them all.
        weight (`float`, *optional*, defaults to 1): sample weight of each of these in the mixture.
        exclude (`dict`, *optional*): leaves out the rows that another corpus tests on, such as `{corpus: slurp, split:
            [validation, test], column: text}`; see [`Exclusion`].
        where (`dict[str, str]`, *optional*): which rows to take, such as `{snr: .+}`: regular expressions that columns match
            in full; an empty column is ''.
    """

    corpus: str
    split: str
    tasks: list[str] | None = None
    limit: int | None = None
    prompts: str = "trained"
    joint: list[list[str]] | None = None
    weight: float = 1.0
    exclude: dict | None = None
    where: dict | None = None

    def __post_init__(self):
        corpus = load_corpus(self.corpus)
        for column in self.where or {}:
            check_column(corpus, column)
        check_patterns(self.where or {}, "where")
        joint = self.joint or []
        if wrong := [several for several in joint if len(set(several)) < max(2, len(several))]:
            raise ValueError(f"key joint holds {wrong[0]}; each list in it names two tasks or more, each once.")
        named = [*(self.tasks or []), *(name for several in joint for name in several)]
        if unknown := [name for name in named if name not in corpus.views]:
            raise ValueError(f"corpus {corpus.id} serves no task {unknown[0]!r}; it serves {', '.join(corpus.views)}.")
        check_split(corpus, self.split)
        if self.exclude is not None:
            check_column(corpus, self.exclusion.column)
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"key limit is {self.limit}; it is at least 1.")
        if self.weight < 0:
            raise ValueError(f"key weight is {self.weight}; it is at least 0.")
        if self.prompts not in PROMPTS:
            raise ValueError(f"key prompts is {self.prompts!r}; it is one of {', '.join(PROMPTS)}.")

    @property
    def name(self) -> str:
        """How logs call it."""
        return load_corpus(self.corpus).id

    @property
    def exclusion(self) -> Exclusion | None:
        return None if self.exclude is None else build(Exclusion, self.exclude, "key exclude")


def parse_source(values, where: str) -> ManifestSource | CorpusSource:
    """An entry of `train_data`, `eval_data` or `test_data`.

    Raises:
        FileNotFoundError: if there is no such corpus.
        ValueError: if the entry is neither, or has something that does not belong in it.
    """
    if not isinstance(values, dict) or "corpus" not in values:
        return ManifestSource.from_fields(values, where)
    if "streaming" in values:
        raise ValueError(
            f"{where}: a stream gives each recording once, and training draws them in any order; "
            "make shards of the corpus with training/data/prepare.py, which streams, and train on those."
        )
    return build(CorpusSource, values, where)


def leave_out(sources: list, licences: str) -> tuple[list, list[str]]:
    """Tells the sources that a licence filter lets through, and names the corpora that it leaves out.

    Manifests are one's own: they are never left out.
    """
    if licences == "all":
        return sources, []
    corpora = [load_corpus(source.corpus) if isinstance(source, CorpusSource) else None for source in sources]
    kept = [s for s, corpus in zip(sources, corpora, strict=True) if corpus is None or corpus.permissive]
    left_out = [f"{corpus.id} ({corpus.licence})" for corpus in corpora if corpus and not corpus.permissive]
    return kept, list(dict.fromkeys(left_out))


def keep_only(sources: list, tasks: list[str]) -> list:
    """The sources with what serves these tasks alone; a corpus that serves none of them is left out, and need not be there.

    Manifests stay whole: what a line asks for is known when it is read, see [`LoadedData.of`].

    Args:
        sources (`list`): entries of a configuration.
        tasks (`list[str]`): ids. A joint answer stays where all of its tasks are among them.
    """
    kept = []
    for source in sources:
        if isinstance(source, CorpusSource):
            corpus = load_corpus(source.corpus)
            named = corpus.default_views if source.tasks is None else source.tasks
            views = [view for view in named if corpus.task_of(view) in tasks]
            joint = [views for views in source.joint or [] if all(corpus.task_of(view) in tasks for view in views)]
            if not views and not joint:
                continue
            source = replace(source, tasks=views, joint=joint or None)
        kept.append(source)
    return kept


def licences_of(sources: list) -> dict[str, dict]:
    """Id -> `title`, `licence`, `permissive` and `speech` of every corpus among the sources. Manifests are one's own and have none."""
    corpora = [load_corpus(source.corpus) for source in sources if isinstance(source, CorpusSource)]
    return {corpus.id: {name: getattr(corpus, name) for name in PUBLISHED_FACTS} for corpus in corpora}


def load_source(source: ManifestSource | CorpusSource, bank) -> tuple[list[Sample], list[dict]]:
    """The samples of a source, and its rows that gave none, as `{"audio", "reason", "corpus", "split", "task"}`.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if nothing is left of it, or a manifest has a mistake.
    """
    if isinstance(source, ManifestSource):
        return load_samples(source, bank), []
    corpus = load_corpus(source.corpus)
    exclusion = source.exclusion
    excluded = (exclusion.column, exclusion.values()) if exclusion else None
    samples, rejected = load_corpus_samples(
        corpus,
        source.split,
        bank,
        source.tasks,
        source.limit,
        source.prompts,
        source.joint,
        excluded,
        source.where,
    )
    return samples, [
        {"audio": row.key, "reason": row.reason, "corpus": row.corpus, "split": row.split, "task": row.task}
        for row in rejected
    ]
