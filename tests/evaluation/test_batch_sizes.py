"""The published model answers alike alone and in batches: real weights, real corpora.

SPEECHVERSE_DATA=data SPEECHVERSE_FOUNDATIONS=foundations pytest -m slow -s tests/evaluation/test_batch_sizes.py
"""

import json
import os
import sys
from pathlib import Path

import pytest
import torch

from speechverse import SpeechVerseForConditionalGeneration, SpeechVerseProcessor
from speechverse.evaluation import run


PUBLISHED = Path(__file__).parents[2] / "model_cards" / "speechverse-mini"
SUITE = """
title: Every way to decode
rows:
  - {id: asr, data: {corpus: nlu_evaluation, split: test, tasks: [asr], prompts: held_out, limit: 200}}
  - {id: ic, data: {corpus: nlu_evaluation, split: test, tasks: [ic], prompts: held_out}, describe: true}
  - {id: sf, data: {corpus: nlu_evaluation, split: test, tasks: [sf]}}
  - {id: er, data: {corpus: ravdess, split: mini_test, tasks: [er]}, decoding: scored}
  - {id: kws, data: {corpus: multi30k, split: test, tasks: [kws], limit: 150}}
"""
SHARE, GAP = 0.998, 1e-3


@pytest.fixture(scope="module")
def published():
    """The published checkpoint, where its bases and the mini corpus are at hand."""
    foundations, data = (Path(os.environ.get(name, "nowhere")) for name in ("TESTS_FOUNDATIONS", "SPEECHVERSE_DATA"))
    if not (foundations / "whisper-base").is_dir() or not (data / "spoken" / "nlu_evaluation").is_dir():
        pytest.skip(
            "needs whisper-base and flan-t5-small in $SPEECHVERSE_FOUNDATIONS and the mini corpus in $SPEECHVERSE_DATA"
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPEECHVERSE_FOUNDATIONS", str(foundations))
        model = SpeechVerseForConditionalGeneration.from_pretrained(PUBLISHED)
        yield PUBLISHED, model, SpeechVerseProcessor.from_pretrained(PUBLISHED)


def gap(model, processor, line: dict, other: str) -> float:
    """How far apart the two tokens are in logits with which two answers to a sample begin to differ."""
    audio, instruction = os.path.expandvars(line["audio"]), line["instruction"]
    ours, theirs = (processor.tokenizer(text).input_ids for text in (line["output"], other))
    first = next(place for place, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1])
    inputs = processor(audio=audio, text=instruction, text_target=line["output"])
    with torch.no_grad():
        logits = model(**inputs).logits[0, first]
    return abs(logits[ours[first]] - logits[theirs[first]]).item()


@pytest.mark.slow
def test_batches_of_1_and_16_give_the_same_answers(published, tmp_path, monkeypatch):
    folder, model, processor = published
    (tmp_path / "suite.yaml").write_text(SUITE)
    answers = {}
    for size in (16, 1):
        out = tmp_path / str(size)
        arguments = [
            "run.py",
            "--model",
            folder,
            "--suite",
            tmp_path / "suite.yaml",
            "--out",
            out,
            "--batch-size",
            size,
        ]
        monkeypatch.setattr(sys, "argv", [str(argument) for argument in arguments])
        run.main()
        answers[size] = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    pairs = list(zip(answers[16], answers[1], strict=True))
    different = [pair for pair in pairs if pair[0]["output"] != pair[1]["output"]]
    gaps = [gap(model, processor, one, other["output"]) for one, other in different]
    print(f"{len(different)} of {len(pairs)} answers differ; gaps in logits {[f'{size:.1e}' for size in gaps]}")
    assert len(pairs) >= 500 and len(different) <= (1 - SHARE) * len(pairs)
    assert all(size < GAP for size in gaps)
