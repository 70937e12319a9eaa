"""Asks a model what a configuration's `test_data` ask, or its `eval_data` where it has none, and says how often it is right.

    python evaluation/run.py --model runs/real_speech --config training/configs/real_speech.yaml

For each source it prints accuracy and unweighted average recall (UAR: the mean over classes of the share of that class
that was recognised, which says something of labels only), and writes `answers.jsonl` and `results.json` into the model's
folder or `--out`. The tasks are the model's own, and those of the configuration's `task_files` and
the shipped ones that it was not trained on.
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
from speechverse.training.arguments import all_tasks, parse_run_config
from speechverse.training.data.filters import FilterRules, filter_samples
from speechverse.training.data.recordings import audio_name, audio_size, open_audio
from speechverse.training.data.run_sources import load_source
from speechverse.training.data.sample import JointSample, Sample


def accuracy(truths: list, answers: list) -> float:
    """Share of answers that are exactly the truth, 0 to 1."""
    return sum(truth == answer for truth, answer in zip(truths, answers, strict=True)) / len(truths)


def unweighted_average_recall(truths: list, answers: list) -> float:
    """Macro-averaged recall over the classes that occur, 0 to 1; every list of keywords or slots is one of its own."""
    classes = [json.dumps(truth) for truth in truths]
    totals = Counter(classes)
    right = Counter(c for c, truth, answer in zip(classes, truths, answers, strict=True) if truth == answer)
    return sum(right[label] / total for label, total in totals.items()) / len(totals)


def ask(answerer, samples: list[Sample], batch_size: int) -> list[str]:
    """What is answered to every sample's first wording, in their order; recordings of like length share a batch."""
    order = sorted(range(len(samples)), key=lambda index: audio_size(samples[index].audio))
    inputs = (
        {"audio": open_audio(samples[index].audio), "instruction": samples[index].instruction()} for index in order
    )
    answers = [None] * len(samples)
    outputs = answerer(inputs, batch_size=batch_size)
    for index, output in zip(order, tqdm(outputs, total=len(samples), unit="clip"), strict=True):
        answers[index] = output["text"]
    return answers


def by_view(samples: list[Sample]) -> list[list[Sample]]:
    """The samples of each view or task of a source, to be scored apart."""
    groups: dict[str | None, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.name, []).append(sample)
    return list(groups.values())


def read(sample: Sample, text: str, tasks: TaskBank) -> tuple:
    """A sample's target and the text that a model wrote, both as typed answers where its task can read the target.

    It cannot where the sample's instruction lists classes of its own; the texts themselves are then the answers.
    """
    joint = sample.joint if isinstance(sample, JointSample) else None
    if joint or sample.task in tasks:
        task, labels = joint or tasks[sample.task], sample.labels or None
        truth, unread = task.parse(sample.target, labels)
        if truth is not None and not unread:
            return truth, task.parse(text, labels).answer
    return sample.target.strip(), text.strip()


def describe_hardware(device: torch.device) -> str:
    """The machine, for whoever reads the figures."""
    cores = f"{os.cpu_count()} CPU cores ({platform.machine()})"
    return f"{torch.cuda.get_device_name(device)}, {cores}" if device.type == "cuda" else cores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint folder or Hub id")
    parser.add_argument("--config", required=True, help="YAML file with test_data or eval_data, as training takes it")
    parser.add_argument("--out", type=Path, help="where results go (default: the model's folder)")
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()

    if options.out is None and not Path(options.model).is_dir():
        raise SystemExit(f"{options.model} is no folder: say by --out where the results go.")
    out = options.out or Path(options.model)
    try:
        config = parse_run_config([options.config])
        sources = config.test_data or config.eval_data
        if not sources:
            raise ValueError(f"{options.config} has neither test_data nor eval_data: there is nothing to ask.")
        answerer = pipeline("speech-instruction", model=options.model)
        processor = answerer.processor
        tasks = all_tasks(processor.tasks, config.tasks)
        # Only what cannot be asked is left out: long answers and silence are part of the test.
        rules = FilterRules(processor, max_audio_tokens=None, max_label_tokens=None, silence=None)
        data = []
        for source in sources:
            samples, rejected = load_source(source, tasks)
            usable, unusable = filter_samples(samples, rules)
            data += [(source, group, rejected + unusable) for group in by_view(usable)]
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    out.mkdir(parents=True, exist_ok=True)
    results = []
    with (out / "answers.jsonl").open("w", encoding="utf-8") as lines:
        for source, samples, skipped in data:
            texts = ask(answerer, samples, options.batch_size)
            pairs = [read(sample, text, tasks) for sample, text in zip(samples, texts, strict=True)]
            truths, answers = zip(*pairs, strict=True)
            row = {
                "instruction": samples[0].instruction(),
                "task": samples[0].task,
                "view": samples[0].view,
                "samples": len(samples),
                "skipped": skipped,
                "accuracy": accuracy(truths, answers),
            }
            if isinstance(samples[0], JointSample):
                row["accuracies"] = {
                    task: accuracy([truth[task] for truth in truths], [(answer or {}).get(task) for answer in answers])
                    for task in samples[0].tasks
                }
            if all(isinstance(truth, str) for truth in truths):  # lists of keywords or slots are no classes
                row["uar"] = unweighted_average_recall(truths, answers)
            results.append(row | {"source": dataclasses.asdict(source)})
            left_out = f", {len(skipped)} left out" if skipped else ""
            recall = f"   UAR {row['uar']:6.1%}" if "uar" in row else ""
            print(
                f"{row['instruction']:40} {row['samples']:5} clips{left_out}   accuracy {row['accuracy']:6.1%}{recall}"
            )
            for sample, (truth, answer) in zip(samples, pairs, strict=True):
                line = {
                    "audio": Path(audio_name(sample.audio)).name,
                    "instruction": sample.instruction(),
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
