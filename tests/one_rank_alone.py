"""Trains on several ranks, of which one alone has trouble: in a first run the last one, in a second the first one.

    torchrun --nproc_per_node 2 one_rank_alone.py MANIFEST FOUNDATIONS FOLDER

In the first run, in `FOLDER/preempted`, the rank has a bad batch in step 2, and gets SIGTERM in step 4. In the second, in
`FOLDER/full`, it cannot write the weights of the best checkpoint so far. Every rank leaves `FOLDER/rank_N.json`: how both
ended for it, and what it had and knew after the first. Its exit code is the first run's.
"""

import errno
import json
import os
import signal
import sys
from pathlib import Path

from tiny_trainer import learned, scale_losses, tiny_trainer
from transformers import TrainerCallback

from speechverse.training.checkpoint_writing import CheckpointWriteError


SMALL = {"per_device_train_batch_size": 2, "per_device_eval_batch_size": 2}


class Scheduler(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step + 1 == 4:
            os.kill(os.getpid(), signal.SIGTERM)


def preempted(*paths) -> dict:
    trainer = tiny_trainer(*paths, max_steps=6, **SMALL)
    if trainer.args.process_index == trainer.args.world_size - 1:
        scale_losses(trainer, {2: float("nan")})
        trainer.add_callback(Scheduler())
    try:
        trainer.train()
    except SystemExit as ended:
        return {
            "code": ended.code,
            "step": trainer.state.global_step,
            "skips": trainer.gradient_guard.skips,
            "norms": trainer.gradient_guard.norms,
            "bad_batches": trainer.gradient_guard.num_bad_batches,
            "weights": {name: parameter.tolist() for name, parameter in learned(trainer).items()},
        }


def full(*paths) -> str:
    def write(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    saving = {"save_strategy": "best", "eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "eval_loss"}
    trainer = tiny_trainer(*paths, max_steps=1, **SMALL, **saving)
    if trainer.args.process_index == 0:
        trainer.model.save_pretrained = write
    try:
        trainer.train()
    except CheckpointWriteError as error:
        return str(error)


def main() -> None:
    manifest, foundations, folder = map(Path, sys.argv[1:])
    left = preempted(manifest, foundations, folder / "preempted")
    left["error"] = full(manifest, foundations, folder / "full")
    (folder / f"rank_{os.environ['RANK']}.json").write_text(json.dumps(left))
    raise SystemExit(left["code"])


if __name__ == "__main__":
    main()
