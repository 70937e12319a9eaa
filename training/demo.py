"""The whole of SpeechVerse in a few minutes, on a laptop's CPU.

    python training/demo.py [--out runs/demo] [--foundations foundations]

Provides whisper-base and flan-t5-small, lets a TTS engine speak commands of the built-in grammar, half of them in noise or a
room, trains a model that answers three kinds of question about them, saves it, loads it again through
`pipeline("speech-instruction")`, and asks it about commands that it never heard. Fails if it gets fewer than 70 % right of any
kind.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tqdm.auto import tqdm


QUESTIONS = {  # column of the corpus -> how to ask for it; training asks in other words, too
    "intent": "What is to be done?",
    "domain": "What is the request about?",
    "accent": "Which accent does the speaker have?",
}
FOUNDATIONS = ("whisper-base", "flan-t5-small")
VOICES = ("nanotts:en-GB", "nanotts:en-US")
REQUIRED_ACCURACY = 0.7
HERE = Path(__file__).resolve().parent


def provide_foundations(folder: Path) -> None:
    """Downloads or builds the two frozen bases."""
    run("foundations.py", "--out", folder, *FOUNDATIONS)


def speak_corpus(folder: Path) -> Path:
    """Speaks the grammar's commands; returns the manifest."""
    from speechverse.training.data.make_mini import make_mini

    make_mini(folder, voices=VOICES)
    return folder / "spoken" / "commands" / "manifest.jsonl"


def train(output_dir: Path) -> None:
    """Trains by the same command that any run uses."""
    run("train.py", HERE / "configs" / "demo.yaml", "--output_dir", output_dir, launcher=True)


def ask(model: Path, manifest: Path) -> dict[str, float]:
    """Asks every kind of question about every test recording; prints truth beside answer; returns the accuracies."""
    from transformers import pipeline

    import speechverse  # noqa: F401  registers the model and the pipeline
    from speechverse.training.data.grammar import UNSEEN_INTENTS

    answerer = pipeline("speech-instruction", model=str(model))
    records = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    records = [record for record in records if record["split"] == "test" and record["intent"] not in UNSEEN_INTENTS]
    recordings = [str(manifest.parent / record["audio"]) for record in records]
    accuracies = {}
    for kind, question in QUESTIONS.items():
        inputs = ({"audio": recording, "instruction": question} for recording in recordings)
        answers = [a["answer"] for a in tqdm(answerer(inputs, batch_size=10), total=len(records), desc=question)]
        print(f"\n{question}\n  {'sentence':62} {'truth':20} answer")
        for record, answer in zip(records, answers, strict=True):
            mark = " " if answer == record[kind] else "x"
            print(f"{mark} {record['text'][:61]:62} {record[kind]:20} {answer}")
        accuracies[kind] = sum(a == r[kind] for a, r in zip(answers, records, strict=True)) / len(records)
    return accuracies


def run(script: str, *arguments, launcher: bool = False) -> None:
    """Runs one of the project's own scripts as a user would; its failure is ours."""
    launch = ["-m", "accelerate.commands.launch", "--num_processes", "1", *cpu_flag()] if launcher else []
    subprocess.run([sys.executable, *launch, str(HERE / script), *map(str, arguments)], check=True)


def cpu_flag() -> list[str]:
    """accelerate looks for a GPU unless told that there is none."""
    import torch

    return [] if torch.cuda.is_available() else ["--cpu"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of the corpus and the checkpoint")
    parser.add_argument("--foundations", type=Path, default=Path("foundations"), help="folder of the frozen bases")
    options = parser.parse_args()

    provide_foundations(options.foundations)
    started = time.monotonic()
    manifest = speak_corpus(options.out / "corpus")
    os.environ["SPEECHVERSE_FOUNDATIONS"] = str(options.foundations.resolve())
    os.environ["SPEECHVERSE_DATA"] = str((options.out / "corpus").resolve())
    train(options.out / "checkpoint")
    accuracies = ask(options.out / "checkpoint", manifest)

    print(f"\nSpoken, trained and asked in {(time.monotonic() - started) / 60:.1f} minutes, downloads apart.")
    print(f"Loss curve: {options.out / 'checkpoint' / 'loss.png'}")
    print(
        f"To use the checkpoint elsewhere, tell where its bases are: export SPEECHVERSE_FOUNDATIONS={options.foundations}"
    )
    for kind, accuracy in accuracies.items():
        print(f"{QUESTIONS[kind]:40} {accuracy:.0%} right")
    if min(accuracies.values()) < REQUIRED_ACCURACY:
        raise SystemExit(f"A kind of question was answered right less than {REQUIRED_ACCURACY:.0%} of the time.")


if __name__ == "__main__":
    main()
