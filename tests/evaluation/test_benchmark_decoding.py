"""The benchmark runs and prints its ratios; what they are is the machine's."""

import re
import sys

from speechverse.evaluation import benchmark_decoding


def test_every_ratio_is_printed(speller_folder, monkeypatch, capsys):
    monkeypatch.setattr(benchmark_decoding, "LABELS", (10, 100))
    arguments = ["--model", str(speller_folder), "--runs", "1", "--seconds", "0.5"]
    monkeypatch.setattr(sys, "argv", ["benchmark_decoding.py", *arguments])
    benchmark_decoding.main()
    shown = capsys.readouterr().out
    for line in ("held to     10 labels", "held to    100 labels", "64 labels scored", "100 hints", "static cache"):
        assert re.search(rf"{line}: \d+\.\d\d x", shown), line
    assert "three questions: not timed" in shown  # it does not know the tasks


def test_forced_answers_are_written_whatever_the_model_likes(speller_folder):
    from transformers import pipeline

    ask = pipeline("speech-instruction", model=str(speller_folder))
    (tokens,) = ask.processor.answer_ids(["set thing 7"])
    inputs = ask.processor(text="what?")
    row = ask.model.generate(**inputs, logits_processor=[benchmark_decoding.Forced(tokens, 1)])[0]
    assert row.tolist()[1:] == tokens
