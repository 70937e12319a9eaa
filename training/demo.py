"""The whole of SpeechVerse in a few minutes, on a laptop's CPU.

    python training/demo.py [--out runs/demo] [--foundations foundations]

Provides whisper-base and flan-t5-small, and then

1. asks the published checkpoint `model_cards/speechverse-mini` many different things about recordings that a TTS engine speaks on
   the spot: `OUT/recordings/*.wav`. The model is small, and some of its answers are wrong.
2. teaches it a task that it never saw, commands to a robot vacuum cleaner, by `training/configs/demo.yaml`, and asks about
   sentences that it never heard, before and after. Fails if it then gets fewer than 70 % right.

Leaves the new checkpoint in `OUT/checkpoint`.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path


HERE = Path(__file__).resolve().parent
PUBLISHED = HERE.parent / "model_cards" / "speechverse-mini"
CONFIG = HERE / "configs" / "demo.yaml"
TASK = HERE / "configs" / "tasks" / "vacuum.yaml"
FOUNDATIONS = ("whisper-base", "flan-t5-small")
REQUIRED_ACCURACY = 0.7
WIDTHS = (46, 32, 32)  # of a table's columns, in characters


def provide_foundations(folder: Path) -> None:
    """Builds the two frozen bases that the published checkpoint was trained on; its LLM is not the Hub's original."""
    run("foundations.py", "--out", folder, "--source", "packages", *FOUNDATIONS)


def take_tour(ask, folder: Path) -> int:
    """Asks a pipeline all questions of the tour; prints what is asked, the truth and the answer; returns how many agree."""
    from speechverse.training.demo_tour import QUESTIONS, agree, as_text, in_words, record

    files = record(folder)
    right = 0
    print_row("instruction", "truth", "answer")
    for question in QUESTIONS:
        answer = ask({"audio": str(files[question.recording]), **question.call})["answer"]
        right += (same := agree(answer, question.truth))
        asked = f"[{question.recording}] {in_words(question.call, ask.processor.tasks)}"
        print_row(asked, as_text(question.truth), as_text(answer), mark="=" if same else " ")
    print(
        f"\n= marks {right} of {len(QUESTIONS)} answers that are the truth, word for word. The model is small, and never heard "
        f"these two synthetic voices: some answers are wrong. Listen to {folder}/*.wav."
    )
    return right


def speak_commands(folder: Path) -> Path:
    """Speaks the commands to a robot vacuum cleaner; returns the manifest."""
    from speechverse.training.data.synthesize import synthesize
    from speechverse.training.data.vacuum_commands import vacuum_sentences
    from speechverse.training.demo_tour import AMERICAN, BRITISH

    return synthesize(vacuum_sentences((BRITISH, AMERICAN)), folder, speed=(0.9, 1.15), pitch=(0.9, 1.1))


def train(output_dir: Path) -> None:
    """Trains by the same command that any run uses."""
    run("train.py", CONFIG, "--output_dir", output_dir, launcher=True)


def answer_commands(ask, manifest: Path) -> list[tuple[dict, str]]:
    """The lines of the manifest's split `test`, each with the pipeline's answer."""
    lines = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line["split"] == "test"]
    inputs = [{"audio": str(manifest.parent / line["audio"]), "task": line["task"]} for line in lines]
    return [(line, answer["answer"]) for line, answer in zip(lines, ask(inputs, batch_size=8), strict=True)]


def accuracy(answered: list[tuple[dict, str]]) -> float:
    """Share of the lines whose answer is their target, 0 to 1."""
    return sum(answer == line["target"] for line, answer in answered) / len(answered)


def load(model: Path):
    """The pipeline of a checkpoint, with the new task among its tasks."""
    from transformers import pipeline

    import speechverse  # registers the model and the pipeline

    ask = pipeline("speech-instruction", model=str(model))
    for task in speechverse.TaskBank.from_yaml(TASK):
        if task.id not in ask.processor.tasks:
            ask.processor.tasks.add(task)
    return ask


def print_row(*cells: str, mark: str = " ") -> None:
    """One row of a table, over as many lines as its cells need."""
    columns = [textwrap.wrap(cell, width) or [""] for cell, width in zip(cells, WIDTHS, strict=True)]
    for number, line in enumerate(itertools.zip_longest(*columns, fillvalue="")):
        shown = "  ".join(text.ljust(width) for text, width in zip(line, WIDTHS, strict=True))
        print(f"{mark if number == 0 else ' '} {shown}".rstrip(), flush=True)


def run(script: str, *arguments, launcher: bool = False) -> None:
    """Runs one of the project's own scripts as a user would, where the repository is; its failure, which it has told of, is ours."""
    launch = ["-m", "accelerate.commands.launch", "--num_processes", "1", *cpu_flag()] if launcher else []
    command = [sys.executable, *launch, str(HERE / script), *map(str, arguments)]
    try:
        subprocess.run(command, check=True, cwd=HERE.parent)
    except subprocess.CalledProcessError as error:
        raise SystemExit(error.returncode) from None


def cpu_flag() -> list[str]:
    """accelerate looks for a GPU unless told that there is none."""
    import torch

    return [] if torch.cuda.is_available() else ["--cpu"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of recordings and checkpoint")
    parser.add_argument("--foundations", type=Path, default=Path("foundations"), help="folder of the frozen bases")
    options = parser.parse_args()
    out, foundations = options.out.resolve(), options.foundations.resolve()

    provide_foundations(foundations)
    started = time.monotonic()
    os.environ["SPEECHVERSE_FOUNDATIONS"] = str(foundations)
    os.environ["SPEECHVERSE_DATA"] = str(out)
    ask = load(PUBLISHED)
    print("\n1. The published checkpoint, asked about recordings that are spoken now\n")
    take_tour(ask, options.out / "recordings")

    print("\n2. A task that it never saw: commands to a robot vacuum cleaner\n")
    manifest = speak_commands(out / "vacuum")
    before = answer_commands(ask, manifest)
    train(out / "checkpoint")
    after = answer_commands(load(out / "checkpoint"), manifest)
    print_row("unheard sentence", "truth", "answer before -> after")
    for (line, old), (_, new) in zip(before, after, strict=True):
        print_row(line["text"], line["target"], f"{old} -> {new}", mark="=" if new == line["target"] else " ")

    minutes = (time.monotonic() - started) / 60
    print(f"\n{len(after)} unheard sentences: {accuracy(before):.0%} right before, {accuracy(after):.0%} after.")
    print(f"Asked, spoken, trained and asked again in {minutes:.1f} minutes, downloads apart.")
    if accuracy(after) < REQUIRED_ACCURACY:
        raise SystemExit(
            f"After training fewer than {REQUIRED_ACCURACY:.0%} of the unheard sentences were answered right."
        )
    print(how_to_ask(options.out, options.foundations, after[0][0]["audio"]))


def how_to_ask(out: Path, foundations: Path, audio: str) -> str:
    """What to type to ask the new checkpoint about a recording of the commands."""
    return f"""
The new checkpoint is {out}/checkpoint, its loss curve loss.png in there. To ask it:

    export SPEECHVERSE_FOUNDATIONS={foundations}
    python
    >>> import speechverse
    >>> from transformers import pipeline
    >>> ask = pipeline("speech-instruction", model="{out}/checkpoint")
    >>> ask("{out}/vacuum/{audio}", task="vacuum")"""


if __name__ == "__main__":
    main()
