"""Asks a model, or a baseline, the rows of a suite, and says how good the answers are.

    python evaluation/run.py --model runs/mini --suite mini_table2
    python evaluation/run.py --model runs/calls --config my_config.yaml      # its test_data, or else its eval_data
    torchrun --nproc_per_node 2 evaluation/run.py --model runs/mini --suite mini_table2
    python evaluation/run.py --system cascade --model runs/text --asr whisper-base --suite mini_table2 --out runs/cascade

Every row is a corpus x task x prompts x decoding x metric; see `suites/` for those that are shipped and `suite.py` for what a
row may say. `--out` (by default `evaluation/SUITE` in the model's folder) then holds `samples.jsonl`, a line for each answer,
and `results.json`: every row's figure with its 95 % bootstrap interval, over speakers where they are known, and how it was
measured. A run that was killed goes on where it was when it is started again in the same way. The tasks are the model's own,
and the shipped ones and the suite's that it was not trained on.
"""

import argparse
import dataclasses
import hashlib
import json
import logging
import time
from pathlib import Path

import torch
from accelerate import PartialState
from huggingface_hub import constants
from transformers import set_seed

from speechverse.evaluation.asking import ask, collect, plan_batches, portable_name
from speechverse.evaluation.baselines import SYSTEMS, load_system
from speechverse.evaluation.baselines.speech_recognition import forget_hypotheses
from speechverse.evaluation.results import (
    RESULTS_NAME,
    check_metrics,
    collect_results,
    describe_hardware,
    print_results,
    score_row,
)
from speechverse.evaluation.sample_log import remove_parts, write_samples
from speechverse.evaluation.suite import LoadedRow, Suite, load_rows, load_suite, suite_of_config
from speechverse.model_cards.draft import refresh_card
from speechverse.processing import TaskBank
from speechverse.training.arguments import parse_run_config
from speechverse.training.data.inspection import FactsCache
from speechverse.training.data.report import CACHE_NAME
from speechverse.training.data.whole_files import write_whole


SETTINGS_NAME = "settings.json"  # by which a run that was killed, or is finished, is known again
logger = logging.getLogger(__name__)


def find_suite(options: argparse.Namespace) -> tuple[Suite, TaskBank]:
    """The suite, or the questions of the configuration, that the command line names, with the rows that it chooses; and its
    tasks."""
    if options.suite:
        suite = load_suite(options.suite)
        tasks = suite.tasks
    else:
        config = parse_run_config([options.config])
        suite, tasks = suite_of_config(config, Path(options.config).stem), config.tasks
    if options.rows:
        known = [row.id for row in suite.rows]
        if unknown := [name for name in options.rows if name not in known]:
            raise ValueError(f"{suite.name} has no row {unknown[0]!r}; it has {', '.join(known)}.")
        suite = dataclasses.replace(suite, rows=[row for row in suite.rows if row.id in options.rows])
    return suite, tasks


def resume_or_start(folder: Path, settings: dict, overwrite: bool) -> bool:
    """Makes the folder ready; tells whether there is anything left to ask.

    Raises:
        ValueError: if it holds the answers of another evaluation.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, results = folder / SETTINGS_NAME, folder / RESULTS_NAME
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    if overwrite:
        known = None
        remove_parts(folder)
        forget_hypotheses(folder)
        results.unlink(missing_ok=True)
    if known is not None and known != settings:
        differing = sorted(key for key in settings.keys() | known.keys() if settings.get(key) != known.get(key))
        raise ValueError(
            f"{folder} holds the answers of an evaluation with another {', '.join(differing)}: give another --out, or "
            "--overwrite."
        )
    if known is not None and results.is_file():
        return False
    write_whole(file, json.dumps(settings, indent=2) + "\n")
    return True


def describe_rows(rows: list[LoadedRow]) -> str:
    """A digest of what is asked: of every row and of its samples."""
    digest = hashlib.sha256()
    for row in rows:
        samples = [
            (sample.key or portable_name(sample.audio), row.instruction(sample), sample.target)
            for sample in row.samples
        ]
        digest.update(json.dumps([str(row.row), samples]).encode())
    return digest.hexdigest()[:16]


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint folder or Hub id")
    parser.add_argument("--system", default="speechverse", choices=SYSTEMS, help="who answers (default: speechverse)")
    parser.add_argument("--asr", help="speech recogniser of a cascade or of keyword_search: a folder or a Hub id")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--suite", help="name of a shipped suite, or a YAML file like theirs")
    asked.add_argument("--config", help="YAML file with test_data or eval_data, as training takes it")
    parser.add_argument("--rows", nargs="+", help="ids of the rows to ask (default: all)")
    parser.add_argument("--limit", type=int, help="ask about so many samples of each row, from all over it")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--out", type=Path, help="where results go (default: evaluation/SUITE in the model's folder)")
    parser.add_argument("--overwrite", action="store_true", help="ask anew what --out has answers to")
    options = parser.parse_args()
    for name in ("limit", "batch_size"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} is {getattr(options, name)}; it is at least 1.")
    return options


def evaluate(options: argparse.Namespace) -> None:
    """All of it; see the module.

    Raises:
        FileNotFoundError, ImportError, OSError, ValueError: if something asked for is not there or wrong; nothing has been
            asked then.
    """
    state = PartialState(cpu=torch.accelerator.current_accelerator(check_available=True) is None)
    suite, tasks = find_suite(options)
    if options.out is None and not (options.model and Path(options.model).is_dir()):
        raise ValueError(f"{options.model} is no folder: say by --out where the results go.")
    folder = options.out or Path(options.model) / "evaluation" / suite.name
    system = load_system(options.system, options.model, options.asr, folder)
    bank = system.tasks(tasks)
    heard = FactsCache(Path(constants.HF_HOME) / "speechverse" / CACHE_NAME)
    with state.main_process_first():  # the others then know what it has heard
        rows = load_rows(suite, bank, system.processor, options.limit, heard)
    reasons = {row.row.id: system.why_not(row) for row in rows}
    not_asked = [{"row": row, "reason": reason} for row, reason in reasons.items() if reason is not None]
    rows = [row for row in rows if reasons[row.row.id] is None]
    if not rows:
        raise ValueError(f"{system.kind} cannot answer any row of {suite.name}; the first: {not_asked[0]['reason']}")
    check_metrics(rows, bank)
    settings = {
        "suite": suite.name,
        "questions": describe_rows(rows),
        "system": system.describe(),
        "batch_size": options.batch_size,
        "seed": options.seed,
    }
    with state.main_process_first():
        unfinished = resume_or_start(folder, settings, options.overwrite and state.is_main_process)
    if not unfinished:
        if state.is_main_process:
            print_results(json.loads((folder / RESULTS_NAME).read_text(encoding="utf-8"))["results"])
            print(f"{folder} holds these results already; --overwrite asks anew.")
        return
    set_seed(options.seed)
    start = time.perf_counter()
    system.load(state.device)
    batches = plan_batches(rows, options.batch_size)
    ask(system, batches, bank, folder)
    if not state.is_main_process:
        return
    lines = collect(batches, folder)
    results = []
    for row in rows:
        results += score_row(row, [line for line in lines if line["row"] == row.row.id], bank, options.seed)
    write_samples(folder, lines)
    how = {"processes": state.num_processes, "seconds": round(time.perf_counter() - start, 1)}
    how |= {"hardware": describe_hardware(state.device), "seed": options.seed, "batch_size": options.batch_size}
    report = collect_results(suite, {"kind": system.kind, **system.describe()}, results, not_asked, how)
    write_whole(folder / RESULTS_NAME, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    remove_parts(folder)
    print_results(results)
    for row in not_asked:
        print(f"{row['row']:28} not asked: {row['reason']}")
    print(f"{folder / RESULTS_NAME}")
    if system.kind == "speechverse" and Path(options.model).is_dir():
        refresh_card(Path(options.model))


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parse_options()
    try:
        evaluate(options)
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
