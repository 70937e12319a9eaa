"""Asks a model what a configuration's `eval_data` ask, and says how often it is right.

    python evaluation/run.py --model runs/real_speech --config training/configs/real_speech.yaml

For each source it prints accuracy and unweighted average recall (UAR: the mean over classes of the share of that class
that was recognised, which says something of labels only), and writes `answers.jsonl` and `results.json` into the model's
folder or `--out`. The tasks are the model's own, and the shipped ones that it was not trained on.
"""

import argparse
import dataclasses
import datetime
import json
import os
import platform
import sys
from collections import Counter
from pathlib import Path

import torch
import transformers
from tqdm.auto import tqdm
from transformers import pipeline
from transformers.utils import CONFIG_NAME, cached_file

import speechverse
from speechverse.modeling_speechverse.base_checkpoints import fingerprint
from speechverse.processing import TaskBank
from speechverse.training.arguments import TASKS_FOLDER, parse_run_config
from speechverse.training.data.filters import drop_unusable
from speechverse.training.data.manifest import Sample, load_samples


def accuracy(truths: list, answers: list) -> float:
    """Share of answers that are exactly the truth, 0 to 1."""
    return sum(truth == answer for truth, answer in zip(truths, answers, strict=True)) / len(truths)


def unweighted_average_recall(truths: list, answers: list) -> float:
    """Macro-averaged recall over the classes that occur, 0 to 1; every list of keywords or slots is one of its own."""
    classes = [json.dumps(truth) for truth in truths]
    totals = Counter(classes)
    right = Counter(c for c, truth, answer in zip(classes, truths, answers, strict=True) if truth == answer)
    return sum(right[label] / total for label, total in totals.items()) / len(totals)


def all_tasks(own: TaskBank) -> TaskBank:
    """A model's own tasks and the shipped ones, which it may be asked unseen; its own go before those of one name."""
    taken = {name for task in own for name in (task.id, task.name)}
    shipped = TaskBank.from_yaml(TASKS_FOLDER)
    return TaskBank([*own, *(task for task in shipped if not taken & {task.id, task.name})])


def ask(answerer, samples: list[Sample], batch_size: int) -> list[str]:
    """What is answered to every sample's first wording, in their order; recordings of like length share a batch."""
    order = sorted(range(len(samples)), key=lambda index: Path(samples[index].audio).stat().st_size)
    inputs = ({"audio": samples[index].audio, "instruction": samples[index].instructions[0]} for index in order)
    answers = [None] * len(samples)
    outputs = answerer(inputs, batch_size=batch_size)
    for index, output in zip(order, tqdm(outputs, total=len(samples), unit="clip"), strict=True):
        answers[index] = output["text"]
    return answers


def read(sample: Sample, text: str, tasks: TaskBank) -> tuple:
    """A sample's target and the text that a model wrote, both as typed answers where its task can read the target.

    It cannot where the sample's instruction lists classes of its own; the texts themselves are then the answers.
    """
    if sample.task in tasks:
        truth, unread = tasks[sample.task].parse(sample.target)
        if truth is not None and not unread:
            return truth, tasks[sample.task].parse(text).answer
    return sample.target.strip(), text.strip()


def describe_hardware(device: torch.device) -> str:
    """The machine, for whoever reads the figures."""
    cores = f"{os.cpu_count()} CPU cores ({platform.machine()})"
    return f"{torch.cuda.get_device_name(device)}, {cores}" if device.type == "cuda" else cores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint folder or Hub id")
    parser.add_argument("--config", required=True, help="YAML file with eval_data, as training takes it")
    parser.add_argument("--out", type=Path, help="where results go (default: the model's folder)")
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()

    if options.out is None and not Path(options.model).is_dir():
        raise SystemExit(f"{options.model} is no folder: say by --out where the results go.")
    out = options.out or Path(options.model)
    try:
        sources = parse_run_config([options.config]).eval_data
        if not sources:
            raise ValueError(f"{options.config} has no eval_data: there is nothing to ask.")
        answerer = pipeline("speech-instruction", model=options.model)
        processor = answerer.processor
        tasks = all_tasks(processor.tasks)
        bounds = (processor.min_audio_seconds, processor.max_audio_seconds)
        data = [drop_unusable(load_samples(source, tasks), *bounds) for source in sources]
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    out.mkdir(parents=True, exist_ok=True)
    results = []
    with (out / "answers.jsonl").open("w", encoding="utf-8") as lines:
        for source, (samples, skipped) in zip(sources, data, strict=True):
            texts = ask(answerer, samples, options.batch_size)
            pairs = [read(sample, text, tasks) for sample, text in zip(samples, texts, strict=True)]
            truths, answers = zip(*pairs, strict=True)
            row = {
                "instruction": samples[0].instructions[0],
                "samples": len(samples),
                "skipped": skipped,
                "accuracy": accuracy(truths, answers),
                "uar": unweighted_average_recall(truths, answers),
            }
            results.append(row | {"source": dataclasses.asdict(source)})
            left_out = f", {len(skipped)} left out" if skipped else ""
            print(
                f"{row['instruction']:40} {row['samples']:5} clips{left_out}   "
                f"accuracy {row['accuracy']:6.1%}   UAR {row['uar']:6.1%}"
            )
            for sample, (truth, answer) in zip(samples, pairs, strict=True):
                line = {
                    "audio": Path(sample.audio).name,
                    "instruction": sample.instructions[0],
                    "truth": truth,
                    "answer": answer,
                }
                lines.write(json.dumps(line, ensure_ascii=False) + "\n")
    report = {
        "results": results,
        "fingerprint": fingerprint(Path(cached_file(options.model, CONFIG_NAME)).parent),
        "date": datetime.date.today().isoformat(),
        "command": ["python", "evaluation/run.py", *sys.argv[1:]],
        "hardware": describe_hardware(answerer.device),
        "versions": {module.__name__: module.__version__ for module in (speechverse, transformers, torch)},
    }
    (out / "results.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
