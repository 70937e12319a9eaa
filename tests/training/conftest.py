"""A corpus of noise, and tiny bases, for the tests of training."""

import json

import pytest
import soundfile
from tiny_models import noise, save_bases

from speechverse import TaskBank
from speechverse.processing.tasks_speechverse import Task


# Answers of different lengths: a loss that averages per batch or per rank, and not per token, gives other numbers.
ANSWERS = ["yes", "no red", "blue . one two three", "two", "green one", "what is said ? say it .", "red", "three one"]


@pytest.fixture(scope="session")
def manifest(tmp_path_factory):
    """A manifest of eight recordings, each with an `answer` and two fields to filter by."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "audio").mkdir()
    lines = []
    for index, answer in enumerate(ANSWERS):
        soundfile.write(folder / f"audio/{index}.wav", noise(0.3 + 0.07 * index, index), 16_000)
        split = "dev" if index >= 6 else "train"
        lines.append({"audio": f"audio/{index}.wav", "answer": answer, "take": index, "split": split})
    file = folder / "manifest.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def foundations(tmp_path_factory):
    """A folder with the tiny bases `tiny-wavlm`, `tiny-t5` and `tiny-llama`."""
    folder = tmp_path_factory.mktemp("foundations")
    for text in ("t5", "llama"):
        save_bases(folder, text=text)
    return folder


@pytest.fixture
def tasks():
    return TaskBank([Task(id="colour", name="colour-naming", tag="C", prompts=["which colour ?", "say it ."])])
