"""Saves that fail, each in a child process: killed at a point of the save, or with no room for a large file.

    python failing_saves.py MANIFEST FOUNDATIONS FOLDER

Every child trains for two steps in a folder of its own, named after its failure, and saves after each; the second save
fails. Beside it stands `FOLDER/none`, where none did. An error's text goes to `error.txt`.
"""

import os
import resource
import shutil
import signal
import sys
from pathlib import Path

from tiny_trainer import tiny_trainer
from transformers import TrainerState

from speechverse.training import checkpoint_writing
from speechverse.training.checkpoint_writing import CheckpointWriteError
from speechverse.training.trainer import SpeechVerseTrainer


# The function at whose nth call, counted from 1, the process is killed. One checkpoint is kept, so that the second save
# deletes that of the first.
KILLS = {
    "before the optimizer": (SpeechVerseTrainer, "_save_optimizer_and_scheduler", 2),
    "before the state": (TrainerState, "save_to_json", 2),
    "before it is on the disk": (checkpoint_writing, "_flush", 2),
    "before it is renamed": (checkpoint_writing, "_publish", 2),
    "before the old one goes": (checkpoint_writing, "_delete", 1),
    "while the old one goes": (shutil, "rmtree", 2),  # the first call tidies up before training
}
ROOMS = {"room for no weights": 20_000, "room for no optimizer": 50_000}  # bytes a file: 26 kB and 71 kB are needed


def kill_at_call(owner, name: str, call: int) -> None:
    original, calls = getattr(owner, name), []

    def killing(*args, **kwargs):
        calls.append(name)
        if len(calls) < call:
            return original(*args, **kwargs)
        if name == "rmtree":
            next(file for file in Path(args[0]).rglob("*") if file.is_file()).unlink()
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, killing)


def limit_at_second_save(room: int) -> None:
    original, calls = SpeechVerseTrainer._save, []

    def limiting(*args, **kwargs):
        calls.append(room)
        if len(calls) == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        return original(*args, **kwargs)

    SpeechVerseTrainer._save = limiting


def train(manifest: Path, foundations: Path, folder: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 1, "logging_strategy": "no"}
    try:
        tiny_trainer(manifest, foundations, folder, max_steps=2, **saving).train()
    except CheckpointWriteError as error:
        (folder / "error.txt").write_text(str(error))


def main() -> None:
    manifest, foundations, folder = map(Path, sys.argv[1:])
    for failure in ("none", *KILLS, *ROOMS):
        child = os.fork()
        if not child:
            if failure in KILLS:
                kill_at_call(*KILLS[failure])
            elif failure in ROOMS:
                limit_at_second_save(ROOMS[failure])
            train(manifest, foundations, folder / failure)
            os._exit(0)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if ended != (-signal.SIGKILL if failure in KILLS else 0):
            raise SystemExit(f"{failure}: exit code {ended}")


if __name__ == "__main__":
    main()
