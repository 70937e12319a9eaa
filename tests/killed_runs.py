"""Runs in processes of their own that are killed at a given moment, as by a machine that goes away."""

import os
import signal
from pathlib import Path

from tiny_trainer import tiny_trainer
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from speechverse import TaskBank
from speechverse.processing.tasks_speechverse import Task
from speechverse.training.curriculum import Stage
from speechverse.training.mixture import Mixture, MixtureArguments, MixtureDataset


STAGES = [
    Stage("align", tasks=["asr"], trains=["projector"], steps=9),
    Stage("join", tasks=["asr"], steps=9),
    Stage("all", steps=12),
]
BOUNDARY = 9
SAVE_STEPS = 3


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class KillAt(TrainerCallback):
    """Kills the process in a step: before it, after its update, or after what was due at its end."""

    def __init__(self, step: int, moment: str):
        self.step = step
        self.moment = moment

    def on_step_begin(self, args, state, control, **kwargs):
        if (state.global_step + 1, "begin") == (self.step, self.moment):
            kill()

    def on_optimizer_step(self, args, state, control, **kwargs):
        if (state.global_step + 1, "update") == (self.step, self.moment):
            kill()

    def on_save(self, args, state, control, **kwargs):
        if (state.global_step, "saved") == (self.step, self.moment):
            kill()


def run(manifest: Path, foundations: Path, folder: Path, step: int = 0, moment: str = "never") -> None:
    """Starts a run, or goes on from its last checkpoint, and is killed at the given moment of the given step.

    Moments are those of [`KillAt`], and `weights`, `optimizer` and `state`, in the midst of writing a checkpoint.
    """
    bank = TaskBank([Task(id=task, name=task, tag=task, prompts=["say it ."]) for task in ("asr", "er")])
    datasets = [MixtureDataset("noise/asr", ("asr",), range(0, 8)), MixtureDataset("noise/er", ("er",), range(8, 16))]
    trainer = tiny_trainer(
        manifest,
        foundations,
        folder,
        bank,
        task_names=("asr", "er"),
        stages=STAGES,
        mixture=Mixture(datasets, MixtureArguments(adaptive=1.0)),
        model_arguments={"lora_dropout": 0.1},  # random numbers have to go on as well
        eval_strategy="steps",
        eval_steps=5,
        save_strategy="steps",
        save_steps=SAVE_STEPS,
        save_total_limit=2,
        warmup_steps=3,
        lr_scheduler_type="cosine",
    )
    trainer.add_callback(KillAt(step, moment))
    writers = {"weights": "_save", "optimizer": "_save_optimizer_and_scheduler", "state": "_save_rng_state"}
    if moment in writers:
        write = getattr(trainer, writers[moment])

        def write_and_die(*args, **kwargs):
            write(*args, **kwargs)
            if trainer.state.global_step == step:
                kill()

        setattr(trainer, writers[moment], write_and_die)
    checkpoint = get_last_checkpoint(folder) if folder.is_dir() else None
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
