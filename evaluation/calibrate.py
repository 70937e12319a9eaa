"""Fits the temperature of scored labels, so that a label with a score of 0.8 is right in 8 of 10 cases.

    python evaluation/calibrate.py --model runs/mini --config training/configs/mini.yaml

For every task of the configuration's `eval_data` that is answered by a label it scores the labels, and finds the temperature
at which the right ones are likeliest (Guo et al., On Calibration of Modern Neural Networks, 2017). It prints the expected
calibration error before and after, on the half of the samples that the temperature was not fitted on, and writes the
temperatures into the model's `tasks.json`, from where the pipeline takes them.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from tqdm.auto import tqdm
from transformers import AutoProcessor, pipeline

from speechverse.evaluation.suite import LoadedRow, load_rows, suite_of_config
from speechverse.evaluation.systems import question
from speechverse.processing import TaskBank
from speechverse.processing.tasks_speechverse import TASKS_NAME
from speechverse.training.arguments import all_tasks, parse_run_config
from speechverse.training.data.recordings import open_audio
from speechverse.training.data.sample import JointSample


BINS = 15  # as usual for the expected calibration error
LARGEST = 100.0  # temperature; more would say that all labels are equally likely


def fit_temperature(log_probabilities: list[np.ndarray], truths: list[int]) -> float:
    """The temperature at which the true labels are likeliest.

    Args:
        log_probabilities (`list[np.ndarray]`): of each sample those of its labels, `(labels,)`, nats.
        truths (`list[int]`): index of each sample's true label.

    Returns:
        `float`: from 0.01 to 100.
    """

    def mean_loss(log_temperature: float) -> float:
        temperature = np.exp(log_temperature)
        return -np.mean(
            [log_softmax(row / temperature)[truth] for row, truth in zip(log_probabilities, truths, strict=True)]
        )

    bounds = (-np.log(LARGEST), np.log(LARGEST))  # the loss is convex in 1 / temperature: it has one minimum
    return float(np.exp(minimize_scalar(mean_loss, bounds=bounds, method="bounded").x))


def expected_calibration_error(log_probabilities: list[np.ndarray], truths: list[int], temperature: float) -> float:
    """How far scores are from the share of right answers, 0 to 1: the mean over bins of the best label's score.

    Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian Binning, 2015; 15 bins of equal width.
    """
    shares = [np.exp(log_softmax(row / temperature)) for row in log_probabilities]
    scores = np.array([row.max() for row in shares])
    right = np.array([row.argmax() == truth for row, truth in zip(shares, truths, strict=True)])
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    gaps = [abs(right[bins == b].mean() - scores[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    return float(sum(gaps))


def is_scored(row: LoadedRow, bank: TaskBank) -> bool:
    """Whether the answer to a row is one of several labels."""
    sample = row.samples[0]
    known = not isinstance(sample, JointSample) and sample.values is not None and sample.task in bank
    return known and bank[sample.task].answer_type == "label" and bank[sample.task].has_form(sample.labels or None)


def score(ask, row: LoadedRow, batch_size: int) -> tuple[list[np.ndarray], list[int]]:
    """The log-probabilities of every sample's labels at temperature 1, up to a constant, and the true one's index."""
    bank = ask.processor.tasks
    questions = ({"audio": open_audio(sample.audio), **question(sample, row, bank)} for sample in row.samples)
    outputs = ask(questions, batch_size=batch_size)
    log_probabilities, truths = [], []
    for sample, output in zip(
        row.samples, tqdm(outputs, total=len(row.samples), unit="clip", leave=False), strict=True
    ):
        labels = list(bank[sample.task].classes(sample.labels or None))
        shares = np.array([output["scores"][label] for label in labels])
        log_probabilities.append(np.log(np.maximum(shares, np.finfo(float).tiny)))
        truths.append(labels.index(sample.answer))
    return log_probabilities, truths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint folder, whose tasks.json is rewritten")
    parser.add_argument("--config", required=True, help="YAML file with eval_data, as training takes it")
    parser.add_argument("--limit", type=int, help="score so many clips of each view")
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args()
    file = Path(options.model) / TASKS_NAME
    if not file.is_file():
        raise SystemExit(f"There is no {file}: give the folder of a checkpoint.")
    try:
        config = parse_run_config([options.config])
        if not config.eval_data:
            raise ValueError(
                f"{options.config} has no eval_data: temperatures are fitted on data that are not learned."
            )
        processor = AutoProcessor.from_pretrained(options.model)
        own = list(processor.tasks)
        bank = all_tasks(processor.tasks, config.tasks)
        processor.tasks = TaskBank(dataclasses.replace(task, temperature=1.0) for task in bank)
        suite = suite_of_config(dataclasses.replace(config, test_data=[]), options.config)
        rows = load_rows(suite, processor.tasks, processor, options.limit)
        ask = pipeline("speech-instruction", model=options.model, processor=processor)
        scored: dict[str, tuple[list, list]] = {}
        for row in rows:
            task = row.samples[0].task
            if task in (one.id for one in own) and is_scored(row, processor.tasks):
                row = dataclasses.replace(row, row=dataclasses.replace(row.row, decoding="scored"))
                of_row, of_task = score(ask, row, options.batch_size), scored.setdefault(task, ([], []))
                of_task[0].extend(of_row[0])
                of_task[1].extend(of_row[1])
        temperatures = {}
        for task, (found, truths) in scored.items():
            if len(found) < 2:
                continue
            fitted = fit_temperature(found[::2], truths[::2])
            before, after = (expected_calibration_error(found[1::2], truths[1::2], t) for t in (1.0, fitted))
            temperatures[task] = fit_temperature(found, truths)
            bound = (
                "" if 2 / LARGEST < temperatures[task] < LARGEST / 2 else "   (at a bound: the data do not settle it)"
            )
            print(
                f"{task:5} {len(found):4} clips   temperature {temperatures[task]:6.2f}   expected calibration error "
                f"{before:.3f} -> {after:.3f}{bound}"
            )
        if not temperatures:
            raise ValueError(f"{options.config} has no eval_data of a task of this model that is answered by labels.")
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    calibrated = [dataclasses.replace(task, temperature=temperatures.get(task.id, task.temperature)) for task in own]
    written = file.with_suffix(".new")  # a file that is only half there would leave the checkpoint without tasks
    TaskBank(calibrated).to_json(written)
    written.replace(file)
    print(f"The temperatures are in {file}.")


if __name__ == "__main__":
    main()
