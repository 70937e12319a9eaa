"""Looks at all data of a run before the first training step.

    python training/data/prepare.py CONFIG.yaml [--out DIR] [--workers N] [--shards DIR | --parquet DIR] [--key value ...]

Every corpus of `train_data`, `eval_data` and `test_data` is read, every recording decoded, on all cores. It prints samples and hours a
task, label balance, what is left out and why, and three examples a task as the model will see them; it leaves
`data_report.json`, `dropped.jsonl` and `lengths.png` in DIR (by default the configuration's `output_dir`, where training
finds the recordings checked). The exit code is 1 if a corpus is not there, or nothing is left of one.

`--shards` and `--parquet` first write each corpus as few large files into DIR/ID, and then look at those.
"""

import argparse
import dataclasses
import logging
import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoTokenizer

import speechverse
from speechverse.modeling_speechverse.base_checkpoints import resolve_base
from speechverse.modeling_speechverse.modeling_speechverse import free_token_id
from speechverse.training.arguments import ModelArguments, RunConfig, parse_run_config
from speechverse.training.data.corpus import load_corpus
from speechverse.training.data.corpus_shards import shard_corpus
from speechverse.training.data.examples import draw_examples, format_example
from speechverse.training.data.filters import FilterRules, check_samples
from speechverse.training.data.inspection import FactsCache
from speechverse.training.data.length_plot import draw_lengths
from speechverse.training.data.report import CACHE_NAME, DataPart, format_report, write_report
from speechverse.training.data.run_sources import CorpusSource, licences_of, load_source


logger = logging.getLogger(__name__)

EXAMPLES_PER_TASK = 3


def prepare(
    config: RunConfig,
    folder: Path,
    workers: int | None = None,
    shards: Path | None = None,
    kind: str = "tar",
    streaming: bool = False,
) -> list[str]:
    """Checks a configuration's data and prints what they are.

    Args:
        config ([`RunConfig`]): the configuration.
        folder (`Path`): gets the report.
        workers (`int`, *optional*): processes; by default one for each core.
        shards (`Path`, *optional*): write the corpora there, as shards of this `kind`, and look at those.
        streaming (`bool`, *optional*, defaults to `False`): read them from the Hub for that without storing them.

    Returns:
        what is in the way of training, a sentence each: empty if nothing is.
    """
    tasks = config.tasks
    processor, why_not = load_processor(config.model, tasks)
    if config.left_out:
        print(f"licences: permissive leaves out {', '.join(config.left_out)}\n")
    if why_not:
        print(f"Frames and tokens are not counted: {why_not}\n")

    sources = [*config.train_data, *config.eval_data, *config.test_data]
    for name in dict.fromkeys(source.corpus for source in sources if isinstance(source, CorpusSource)):
        corpus = load_corpus(name)
        if corpus.note:
            print(f"Note on {corpus.id}: {corpus.note.strip()}\n")

    problems: list[str] = []
    rules = FilterRules(processor, tasks)
    cache = FactsCache(folder / CACHE_NAME)
    parts = {}
    for name, sources in (("train", config.train_data), ("eval", config.eval_data), ("test", config.test_data)):
        part = DataPart([])
        for source in sources:
            try:
                rejected = []
                if shards is not None and isinstance(source, CorpusSource):
                    source, rejected = _shard(source, shards, kind, streaming, workers)
                samples, unread = load_source(source, tasks)
            except (ImportError, OSError, ValueError) as error:
                problems.append(f"{name}_data, {_describe(source)}: {error}")
                continue
            part.rejected += rejected + [{**_place(source), **row} for row in unread]
            checked = check_samples(samples, rules, workers, cache)
            if all(one.fault is not None for one in checked):
                first = f"; the first: {checked[0].fault}" if checked else ""
                problems.append(
                    f"{name}_data, {_describe(source)}: none of {len(checked)} samples can be used{first}."
                )
            part.checked += checked
        parts[name] = part

    licences = licences_of(config.train_data + config.eval_data)
    report = write_report(folder, parts, tasks, licences=licences, problems=problems, not_counted=why_not)
    kept = [one for part in parts.values() for one in part.kept]
    draw_lengths(kept, folder / "lengths.png")
    print(format_report(report, list(parts)))
    _print_examples(parts, processor, config.namespace.seed)
    print(f"\n{folder}: data_report.json, dropped.jsonl, lengths.png")
    return problems


def load_processor(arguments: ModelArguments, tasks) -> tuple[object, str | None]:
    """The processor of the model that the configuration's bases make, or `None` and why there is none.

    No weights are read: it needs the bases' configurations, feature extractor and tokenizer.
    """
    try:
        audio_folder = resolve_base(arguments.audio_base, revision=arguments.audio_revision)
        text_folder = resolve_base(arguments.text_base, revision=arguments.text_revision)
        tokenizer = AutoTokenizer.from_pretrained(text_folder)
        model_config = speechverse.SpeechVerseConfig(
            audio_config=AutoConfig.from_pretrained(audio_folder),
            text_config=AutoConfig.from_pretrained(text_folder),
            projector_kernel_sizes=arguments.projector_kernel_sizes,
            projector_strides=arguments.projector_strides,
            audio_token_id=free_token_id(tokenizer),
        )
        with torch.device("meta"):
            model = speechverse.SpeechVerseForConditionalGeneration(model_config)
        extractor = AutoFeatureExtractor.from_pretrained(audio_folder)
        return speechverse.SpeechVerseProcessor.for_model(model, tasks, extractor, tokenizer), None
    except (OSError, ValueError) as error:
        return None, str(error)


def _shard(source: CorpusSource, folder: Path, kind: str, streaming: bool, workers: int | None):
    """The source with the shards in place of the corpus, and the rows that are in none."""
    corpus = load_corpus(source.corpus)
    file, dropped = shard_corpus(corpus, source.split, folder, kind, streaming=streaming, workers=workers)
    print(f"{corpus.id}/{source.split} is in shards; train on them with `corpus: {file}`")
    return dataclasses.replace(source, corpus=str(file)), dropped


def _describe(source) -> str:
    return f"{source.corpus}/{source.split}" if isinstance(source, CorpusSource) else source.manifest


def _place(source) -> dict:
    return {"corpus": source.corpus, "split": source.split} if isinstance(source, CorpusSource) else {}


def _print_examples(parts: dict[str, DataPart], processor, seed: int) -> None:
    shown = set()
    for name, part in parts.items():
        for task, examples in draw_examples(part.kept, EXAMPLES_PER_TASK, seed).items():
            if task not in shown:
                print(f"\n{task}, as the model sees it ({name}):")
                print("\n".join(format_example(one, processor, seed) for one in examples))
                shown.add(task)


def _parse(argv: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # else it would take the configuration's keys for its own
    )
    parser.add_argument("config", help="the run's YAML file; other options override its keys, as in training")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the report goes (default: the output_dir)")
    parser.add_argument("--workers", type=int, help="processes (default: one for each core)")
    written = parser.add_mutually_exclusive_group()
    written.add_argument("--shards", type=Path, metavar="DIR", help="write every corpus as tar shards into DIR/ID")
    written.add_argument("--parquet", type=Path, metavar="DIR", help="write every corpus as parquet into DIR/ID")
    parser.add_argument(
        "--streaming", action="store_true", help="with these: read corpora of the Hub without storing them"
    )
    options, overrides = parser.parse_known_args(argv)
    if options.workers is not None and options.workers < 1:
        parser.error(f"--workers is {options.workers}: give 1 or more")
    if options.streaming and not (options.shards or options.parquet):
        parser.error("--streaming needs --shards or --parquet: a stream can be read only once")
    return options, overrides


def main(argv: list[str] | None = None) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    options, overrides = _parse(argv)
    try:
        config = parse_run_config([options.config, *overrides])
    except (FileNotFoundError, ImportError, ValueError) as error:
        raise SystemExit(str(error)) from error
    kind = "parquet" if options.parquet else "tar"
    folder = options.out or Path(config.namespace.output_dir)
    problems = prepare(config, folder, options.workers, options.shards or options.parquet, kind, options.streaming)
    if problems:
        print("\nIn the way of training:", *problems, sep="\n  ", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
