"""A tiny checkpoint that spells, and a tiny corpus with transcripts and labels."""

import json

import pytest
import soundfile
from tiny_models import noise, tiny_speller

from speechverse import Task, TaskBank


CORPUS = """
id: calls
title: Our calls
licence: CC0-1.0
permissive: true
citation: nowhere
access: Ask us.
sources:
  - {kind: jsonl, root: $CALLS, files: rows.jsonl, splits: {test: {}}, columns: {audio: audio, text: text, mood: mood}}
tasks:
  asr: {answer: text}
  er: {answer: mood}
"""


@pytest.fixture
def speller_folder(tmp_path):
    """A checkpoint that can be asked for two tasks."""
    tasks = TaskBank(
        [
            Task("asr", "speech-recognition", "ASR", ["write it"]),
            Task("er", "emotion-recognition", "Emotion", ["{labels}?"], {"happy": "glad", "sad": "down"}),
        ]
    )
    model, processor = tiny_speller("whisper", tasks=tasks)
    model.generation_config.max_new_tokens = 20
    model.save_pretrained(tmp_path / "speller")
    processor.save_pretrained(tmp_path / "speller")
    return tmp_path / "speller"


@pytest.fixture
def moods(tmp_path, monkeypatch):
    """A configuration that asks about six clips."""
    monkeypatch.setenv("CALLS", str(tmp_path))
    rows = [{"audio": f"{i}.wav", "text": "stop it", "mood": "sad" if i % 3 else "happy"} for i in range(6)]
    for index, row in enumerate(rows):
        soundfile.write(tmp_path / row["audio"], noise(0.4 + 0.1 * index, index), 16_000)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "calls.yaml").write_text(CORPUS)
    source = "[{corpus: $CALLS/calls.yaml, split: test}]"
    config = tmp_path / "config.yaml"
    config.write_text(f"audio_base: a\ntext_base: b\ntrain_data: {source}\neval_data: {source}\n")
    return config
