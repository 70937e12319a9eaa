"""Checkpoints are there whole, or not at all: killed saves, full disks, and what is deleted when."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from failing_saves import KILLS, ROOMS
from safetensors import SafetensorError
from tiny_trainer import learned, tiny_trainer
from transformers import TrainerState
from transformers.trainer_utils import get_last_checkpoint

from speechverse.training import train as train_script
from speechverse.training.checkpoint_writing import REPLACED, STAGING_FOLDER, CheckpointWriteError, clear_staging


SCRIPT = Path(__file__).parents[1] / "failing_saves.py"
EVERY_STEP = {"save_strategy": "steps", "save_steps": 1}


def checkpoints(folder) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_dir()}


def sizes(folder) -> dict[str, int]:
    return {str(file.relative_to(folder)): file.stat().st_size for file in folder.rglob("*")}


def raising(error: Exception):
    def write(*args, **kwargs):
        raise error

    return write


@pytest.fixture(scope="module")
def failed(manifest, foundations, tmp_path_factory):
    """A folder of runs, one for every way in which their second save failed; and `none`, where it did not."""
    folder = tmp_path_factory.mktemp("failed")
    command = [sys.executable, SCRIPT, manifest, foundations, folder]
    path = {"PYTHONPATH": os.pathsep.join([str(SCRIPT.parent), *filter(None, sys.path)])}
    process = subprocess.run(command, env=os.environ | path, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr[-3000:]
    return folder


# Killed


@pytest.mark.parametrize("point", KILLS)
def test_killed_save_leaves_whole_checkpoints_alone(point, failed):
    whole = sizes(failed / "none" / "checkpoint-2")
    steps = {f"checkpoint-{step}" for step in ([2] if "goes" in point else [1])}
    left = list((failed / point).glob("checkpoint-*"))
    assert steps <= {path.name for path in left} <= steps | {"checkpoint-1"}
    for path in left:
        assert sizes(path).keys() == whole.keys()
        state = json.loads((path / "trainer_state.json").read_text())
        assert path.name == f"checkpoint-{state['global_step']}"


def test_killed_run_is_resumed_and_tidied(failed, manifest, foundations, tmp_path):
    """From a save that was killed with all files written, and none flushed."""
    folder = failed / "before it is on the disk"
    assert (folder / STAGING_FOLDER / "checkpoint-2" / "trainer_state.json").is_file()
    trainer = tiny_trainer(manifest, foundations, folder, max_steps=2, **EVERY_STEP)
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 2 and not (folder / STAGING_FOLDER).exists()
    uninterrupted = tiny_trainer(manifest, foundations, tmp_path, max_steps=2)
    uninterrupted._load_from_checkpoint(failed / "none" / "checkpoint-2")
    for name, parameter in learned(uninterrupted).items():
        assert torch.equal(parameter, learned(trainer)[name]), name


def test_checkpoint_that_was_about_to_be_replaced_is_put_back(tmp_path):
    """A kill between the two renamings, of which the first takes the old one away."""
    replaced = tmp_path / STAGING_FOLDER / f"{REPLACED}checkpoint-3"
    replaced.mkdir(parents=True)
    (replaced / "model.safetensors").write_text("whole")
    clear_staging(tmp_path)
    assert get_last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-3")
    assert (tmp_path / "checkpoint-3" / "model.safetensors").is_file() and not (tmp_path / STAGING_FOLDER).exists()


# Full


@pytest.mark.parametrize("room", ROOMS)
def test_file_that_does_not_fit_ends_the_run_with_one_sentence(room, failed):
    folder = failed / room
    reason = {"room for no weights": "File too large", "room for no optimizer": "a file was not written whole"}[room]
    assert re.fullmatch(
        rf"The checkpoint of step 2 could not be written to {folder}, with \d+ MB free: .*{reason}.*\. {folder}"
        r"/checkpoint-1 is whole: make room, and go on from it with --resume_from_checkpoint true\.",
        (folder / "error.txt").read_text(),
    )
    assert {path.name for path in folder.iterdir()} == {"checkpoint-1", "error.txt"}
    assert sizes(folder / "checkpoint-1").keys() == sizes(failed / "none" / "checkpoint-2").keys()


FULL = {
    "save_pretrained": SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    "_save_rng_state": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "save_to_json": Exception("No space left on device (os error 28)"),  # as the tokenizers' library says it
}


@pytest.mark.parametrize("writer", FULL)
def test_full_disk_leaves_nothing_of_the_checkpoint(writer, make_trainer, tmp_path, monkeypatch):
    trainer = make_trainer(max_steps=2, **EVERY_STEP)
    owner = {"save_pretrained": trainer.model, "_save_rng_state": trainer, "save_to_json": TrainerState}[writer]
    monkeypatch.setattr(owner, writer, raising(FULL[writer]))
    with pytest.raises(CheckpointWriteError, match="step 1 .* No space left .* No checkpoint came before: make room"):
        trainer.train()
    assert not list((tmp_path / "run").iterdir())


def test_mistake_in_a_writer_is_not_taken_for_a_full_disk(make_trainer, monkeypatch):
    trainer = make_trainer(max_steps=1, **EVERY_STEP)
    monkeypatch.setattr(trainer, "_save_rng_state", lambda folder: folder.no_such_thing)
    with pytest.raises(AttributeError, match="no_such_thing"):
        trainer.train()


def test_finished_model_that_does_not_fit_is_a_sentence_too(make_trainer, tmp_path, monkeypatch):
    trainer = make_trainer()
    (tmp_path / "run" / "checkpoint-9").mkdir()
    monkeypatch.setattr(trainer.model, "save_pretrained", raising(FULL["save_pretrained"]))
    with pytest.raises(CheckpointWriteError, match="The model could not be written .*checkpoint-9 is whole"):
        trainer.save_model()


def test_script_ends_with_the_sentence(monkeypatch):
    for name in ("parse_run_config", "build_trainer"):
        monkeypatch.setattr(train_script, name, lambda argument: None)
    monkeypatch.setattr(train_script, "train", raising(CheckpointWriteError("make room")))
    with pytest.raises(SystemExit, match="^make room$"):
        train_script.main()


# What is kept


def test_best_checkpoint_is_kept_and_its_final_path_written_down(make_trainer, tmp_path, monkeypatch):
    evaluating = {"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "eval_loss"}
    trainer = make_trainer(max_steps=4, save_total_limit=2, **EVERY_STEP, **evaluating)
    measured = {1: 3.0, 2: 1.0, 3: 2.0, 4: 2.0}
    monkeypatch.setattr(trainer, "evaluate", lambda **arguments: {"eval_loss": measured[trainer.state.global_step]})
    trainer.train()
    assert checkpoints(tmp_path / "run") == {"checkpoint-2", "checkpoint-4"}
    for name in ("checkpoint-2", "checkpoint-4"):
        state = json.loads((tmp_path / "run" / name / "trainer_state.json").read_text())
        assert state["best_model_checkpoint"] == str(tmp_path / "run" / "checkpoint-2")


def test_only_the_best_is_left_of_a_finished_run_with_room_for_one(make_trainer, tmp_path, monkeypatch):
    evaluating = {"eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True}
    trainer = make_trainer(max_steps=2, save_total_limit=1, **EVERY_STEP, **evaluating)
    monkeypatch.setattr(trainer, "evaluate", lambda **arguments: {"eval_loss": trainer.state.global_step})
    trainer.train()
    assert checkpoints(tmp_path / "run") == {"checkpoint-1"}


def test_older_checkpoint_of_the_same_step_is_replaced(make_trainer, tmp_path):
    old = tmp_path / "run" / "checkpoint-1"
    old.mkdir(parents=True)
    (old / "stale").write_text("")
    make_trainer(max_steps=1, **EVERY_STEP).train()
    assert (old / "model.safetensors").is_file() and not (old / "stale").exists()
    assert checkpoints(tmp_path / "run") == {"checkpoint-1"}
