"""Says what ways to decode cost, as ratios of times in one process: constraints, scores, several questions, hints.

    python evaluation/benchmark_decoding.py --model runs/mini --runs 5

Each figure is the median of the runs, which take turns. Beside the ratio stands the floor that arithmetic sets: how many
tokens the LLM has to read and write in the one case and in the other. Answers are forced to the same number of tokens where
they would differ.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from transformers import LogitsProcessor, pipeline

from speechverse import Task


RATE = 16_000  # Hz
LABELS = (10, 1_000, 10_000)
QUESTIONS = 3


class Forced(LogitsProcessor):
    """Writes one given answer: what is to be timed does not depend on the model's taste."""

    def __init__(self, tokens: list[int], prompt_length: int):
        self.tokens, self.prompt_length = tokens, prompt_length

    def __call__(self, input_ids, scores):
        position = min(input_ids.shape[1] - self.prompt_length, len(self.tokens) - 1)
        scores = scores.clone()
        scores[:, self.tokens[position]] = scores.max() + 100
        return scores


def take_turns(cases: dict[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """Median seconds of each case; the cases take turns, so that a busy machine is no one's alone."""
    seconds = {name: [] for name in cases}
    for run in range(runs + 1):
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            if run:  # the first warms up
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def many_labels(count: int) -> list[str]:
    """Labels of four words or so, which share their beginnings as intents do."""
    verbs = ("set", "remove", "query", "play", "stop", "change", "buy", "send", "read", "find")
    return [f"{verbs[i % 10]} thing {i // 10}" for i in range(count)]


def benchmark_constraints(ask, inputs: dict, runs: int):
    """Held to 10, 1,000 and 10,000 labels against free, writing the same answer."""
    model, processor = ask.model, ask.processor
    constraints = {}
    for count in LABELS:
        task = Task(f"labels_{count}", f"labels-{count}", "L", ["{labels}"], dict.fromkeys(many_labels(count), ""))
        start = time.perf_counter()
        constraints[count] = processor.constraints.build(task)
        constraints[count].tokens_to_end  # noqa: B018  counted once, as the tree of labels is built once
        print(f"building the constraint of {count:6,} labels: {time.perf_counter() - start:.3f} s, once")
    (answer,) = processor.answer_ids(many_labels(1))
    forced = [Forced(answer, int(model.config.is_encoder_decoder))]
    limit = {"max_new_tokens": max(constraint.longest for constraint in constraints.values())}
    cases = {"free": lambda: model.generate(**inputs, logits_processor=forced, **limit)}
    for count, constraint in constraints.items():
        cases[f"{count:,}"] = lambda c=constraint: model.generate(
            **inputs, constraint=c, logits_processor=forced, **limit
        )
    seconds = take_turns(cases, runs)
    print(f"free decoding of {len(answer)} tokens: {seconds['free']:.3f} s")
    for count in LABELS:
        print(f"held to {count:6,} labels: {seconds[f'{count:,}'] / seconds['free']:.2f} x free   (floor 1)")


def benchmark_scores(ask, inputs: dict, runs: int):
    """64 scored labels against one, and against 64 calls."""
    model, processor = ask.model, ask.processor
    label_ids = processor.answer_ids(many_labels(64))
    seconds = take_turns(
        {
            "one": lambda: model.score_labels(label_ids[:1], **inputs),
            "64": lambda: model.score_labels(label_ids, **inputs),
            "64 calls": lambda: [model.score_labels([ids], **inputs) for ids in label_ids],
        },
        runs,
    )
    beginnings = {tuple(ids[:depth]) for ids in label_ids for depth in range(1, len(ids))}
    read = inputs["input_ids"].shape[1]
    floor = (read + 1 + len(beginnings)) / (read + len(label_ids[0]))
    print(
        f"64 labels scored: {seconds['64'] / seconds['one']:.2f} x one label   (floor by tokens {floor:.2f}: {read} of the "
        f"input, {len(beginnings)} of the labels' {sum(map(len, label_ids))});   64 calls: "
        f"{seconds['64 calls'] / seconds['one']:.1f} x"
    )


def benchmark_questions(ask, recording: dict, runs: int):
    """Three questions about one recording against three calls."""
    questions = [{"task": task} for task in ("er", "asc", "sns") if task in ask.processor.tasks]
    if len(questions) < QUESTIONS:
        print("three questions: not timed, since this model does not know the tasks er, asc and sns")
        return
    seconds = take_turns(
        {
            "together": lambda: ask(recording, questions),
            "apart": lambda: [ask(recording, **question) for question in questions],
        },
        runs,
    )
    print(
        f"{QUESTIONS} questions about one recording: {seconds['together'] / seconds['apart']:.2f} x {QUESTIONS} calls"
    )


def benchmark_hints(ask, inputs: dict, runs: int):
    """10, 1,000 and 10,000 hints against none, writing 32 tokens."""
    options = {"max_new_tokens": 32, "min_new_tokens": 32}
    cases = {"none": lambda: ask.model.generate(**inputs, **options)}
    for count in LABELS:
        hint_ids = ask.processor.hint_ids(many_labels(count))
        cases[count] = lambda ids=hint_ids: ask.model.generate(**inputs, hint_ids=ids, hint_bonus=0.1, **options)
    seconds = take_turns(cases, runs)
    for count in LABELS:
        print(f"{count:6,} hints: {seconds[count] / seconds['none']:.2f} x none   (floor 1)")


def benchmark_static_cache(ask, inputs: dict, runs: int):
    """A cache of fixed shapes, which a compiled decoder needs, against one that grows."""
    options = {"max_new_tokens": 32, "min_new_tokens": 32}
    seconds = take_turns(
        {
            "growing": lambda: ask.model.generate(**inputs, **options),
            "static": lambda: ask.model.generate(**inputs, cache_implementation="static", **options),
        },
        runs,
    )
    print(f"static cache: {seconds['static'] / seconds['growing']:.2f} x one that grows, 32 tokens")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint folder or Hub id")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of the recording")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    try:
        ask = pipeline("speech-instruction", model=options.model)
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    wave = np.random.default_rng(0).normal(scale=0.1, size=round(options.seconds * RATE)).astype(np.float32)
    recording = {"array": wave, "sampling_rate": RATE}
    inputs = dict(ask.processor(text="Which of these is asked for?", audio=recording).to(ask.device))
    print(f"{options.seconds:g} s of audio, {torch.get_num_threads()} threads, medians of {options.runs} runs")
    benchmark_constraints(ask, inputs, options.runs)
    benchmark_scores(ask, inputs, options.runs)
    benchmark_questions(ask, recording, options.runs)
    benchmark_hints(ask, inputs, options.runs)
    benchmark_static_cache(ask, inputs, options.runs)


if __name__ == "__main__":
    main()
