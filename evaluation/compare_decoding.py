"""Compares ways to decode: free, held to the labels, and scored labels; single and joint answers.

    python evaluation/compare_decoding.py --model runs/mini --config training/configs/mini.yaml --limit 200

For every source of the configuration's `test_data` that is answered by labels, with and without their descriptions in the
prompt, it prints the share of right answers and the seconds that a clip takes, as in the paper's Table 7. Where the source
has transcripts as well, it compares the answer alone with that in a joint answer which gives the transcript first, as in
Table 9. `decoding.json` in the model's folder, or in `--out`, holds all of it.
"""

import argparse
import dataclasses
import datetime
import json
import sys
import time
from pathlib import Path

import jiwer
import transformers
from tqdm.auto import tqdm
from transformers import pipeline

import speechverse
from speechverse.evaluation.run import accuracy, by_view, describe_hardware
from speechverse.training.arguments import all_tasks, parse_run_config
from speechverse.training.data.corpus import load_corpus
from speechverse.training.data.recordings import audio_size, open_audio
from speechverse.training.data.run_sources import CorpusSource, load_source
from speechverse.training.data.sample import JointSample, Sample


DECODING = {
    "free": {"constrained": False},
    "held to labels": {"constrained": True},
    "scored": {"return_scores": True},
}


def question(sample: Sample, describe: bool) -> dict:
    """What the pipeline is asked about a sample: its own words, and its task's kind of answer."""
    if isinstance(sample, JointSample):
        values = {name: value for part in sample.parts for name, value in (part.values or {}).items()}
        return {"task": list(sample.tasks), "labels": sample.labels or None, **values}
    words = {"prompt": sample.instructions[0], "describe": describe}
    return {"task": sample.task, "labels": sample.labels, **words, **(sample.values or {})}


def ask_all(ask, samples: list[Sample], batch_size: int, describe: bool = False, **options) -> tuple[list, float]:
    """The typed answers to samples, in their order, and the seconds that each took."""
    order = sorted(range(len(samples)), key=lambda index: audio_size(samples[index].audio))
    rows = ({"audio": open_audio(samples[i].audio), **question(samples[i], describe)} for i in order)
    answers, start = [None] * len(samples), time.perf_counter()
    outputs = ask(rows, batch_size=batch_size, **options)
    for index, output in zip(order, tqdm(outputs, total=len(samples), unit="clip", leave=False), strict=True):
        answers[index] = output["answer"]
    return answers, (time.perf_counter() - start) / len(samples)


def spread(samples: list, limit: int | None) -> list:
    """At most `limit` of the samples, from all over them."""
    if limit is None or len(samples) <= limit:
        return samples
    return [samples[index * len(samples) // limit] for index in range(limit)]


def compare_label_decoding(ask, samples: list[Sample], batch_size: int) -> list[dict]:
    """Accuracy and time of every way to decode, with and without descriptions."""
    rows = []
    ask_all(ask, samples[:batch_size], batch_size)  # so that the first way that is timed starts nothing for the others
    for describe in (False, True):
        for name, options in DECODING.items():
            answers, seconds = ask_all(ask, samples, batch_size, describe, **options)
            right = accuracy([sample.answer for sample in samples], answers)
            none = sum(answer is None for answer in answers)
            rows.append(
                {
                    "described": describe,
                    "decoding": name,
                    "accuracy": right,
                    "no_label": none,
                    "seconds_a_clip": seconds,
                }
            )
    return rows


def compare_joint_decoding(ask, samples: list[JointSample], batch_size: int) -> dict:
    """Accuracy of the labels and word error rate of the transcripts, alone and together."""
    asr, task = samples[0].tasks
    together, seconds = ask_all(ask, samples, batch_size)
    labels, _ = ask_all(ask, [sample.parts[1] for sample in samples], batch_size)
    texts, _ = ask_all(ask, [sample.parts[0] for sample in samples], batch_size)
    truths = [sample.answer[task] for sample in samples]
    said = [_words(sample.answer[asr]) for sample in samples]
    return {
        "task": task,
        "accuracy_alone": accuracy(truths, labels),
        "accuracy_joint": accuracy(truths, [answer[task] for answer in together]),
        "wer_alone": jiwer.wer(said, [_words(text) for text in texts]),
        "wer_joint": jiwer.wer(said, [_words(answer[asr] or "") for answer in together]),
        "seconds_a_clip": seconds,
    }


def _words(text: str) -> str:
    """In lower case, without signs."""
    return " ".join("".join(c if c.isalnum() or c == "'" else " " for c in text.casefold()).split())


def label_views(config, tasks):
    """Every source with a group of its samples that are answered by labels."""
    for source in config.test_data or config.eval_data:
        samples, _ = load_source(source, tasks)
        for group in by_view(samples):
            first = group[0]
            single = first.task is not None and not isinstance(first, JointSample)
            if single and tasks[first.task].answer_type == "label" and "{labels}" in first.instructions[0]:
                yield source, group


def joint_view(source, group: list[Sample], tasks) -> list[JointSample]:
    """The same task's samples with transcripts, asked for together; none where there are no transcripts."""
    if not isinstance(source, CorpusSource) or "asr" not in load_corpus(source.corpus).views:
        return []
    joint = dataclasses.replace(source, tasks=[], joint=[["asr", group[0].name]])
    return load_source(joint, tasks)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint folder or Hub id")
    parser.add_argument("--config", required=True, help="YAML file with test_data or eval_data, as training takes it")
    parser.add_argument(
        "--views", nargs="+", help="names of the corpora's views to ask (default: all that have labels)"
    )
    parser.add_argument("--limit", type=int, help="ask about so many clips of each view")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--out", type=Path, help="folder for decoding.json (default: the model's folder)")
    options = parser.parse_args()
    if options.out is None and not Path(options.model).is_dir():
        raise SystemExit(f"{options.model} is no folder: say by --out where the results go.")
    out = options.out or Path(options.model)
    try:
        config = parse_run_config([options.config])
        if not (config.test_data or config.eval_data):
            raise ValueError(f"{options.config} has neither test_data nor eval_data: there is nothing to ask.")
        ask = pipeline("speech-instruction", model=options.model)
        tasks = all_tasks(ask.processor.tasks, config.tasks)
        ask.processor.tasks = tasks
        results = []
        for source, group in label_views(config, tasks):
            name = f"{source.name}/{group[0].name}"
            if options.views and group[0].name not in options.views:
                continue
            samples = spread(group, options.limit)
            classes = len(samples[0].labels or tasks[samples[0].task].labels)
            result = {"view": name, "clips": len(samples), "classes": classes}
            result["decoding"] = compare_label_decoding(ask, samples, options.batch_size)
            print(f"{name}: {len(samples)} clips, {classes} classes")
            for row in result["decoding"]:
                print(
                    f"  {'described' if row['described'] else 'names alone':12} {row['decoding']:15} right "
                    f"{row['accuracy']:6.1%}   no label {row['no_label']:4}   {row['seconds_a_clip']:.3f} s a clip"
                )
            if joint := spread(joint_view(source, group, tasks), options.limit):
                result["joint"] = row = compare_joint_decoding(ask, joint, options.batch_size)
                print(
                    f"  alone / after the transcript: right {row['accuracy_alone']:.1%} / {row['accuracy_joint']:.1%}, "
                    f"WER {row['wer_alone']:.1%} / {row['wer_joint']:.1%}"
                )
            results.append(result)
        if not results:
            raise ValueError(f"{options.config} has no view that is answered by labels: there is nothing to compare.")
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    report = {
        "results": results,
        "date": datetime.date.today().isoformat(),
        "command": ["python", "evaluation/compare_decoding.py", *sys.argv[1:]],
        "hardware": describe_hardware(ask.device),
        "versions": {module.__name__: module.__version__ for module in (speechverse, transformers)},
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "decoding.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
