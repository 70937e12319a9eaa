"""Checkpoints that are there whole, or not at all."""

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

from accelerate.utils import gather_object
from safetensors import SafetensorError
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint, sort_checkpoints


STAGING_FOLDER = ".incomplete"  # in the output folder; whatever looks for checkpoints there passes over it
REPLACED, DELETED = "replaced ", "deleted "


class CheckpointWriteError(OSError):
    """A checkpoint, or the finished model, could not be written: the disk is full, or gone."""


class AtomicCheckpointsMixin:
    """For a [`~transformers.Trainer`]: a checkpoint gets its name when every rank has written its part of it.

    Until then it lies in `.incomplete` in the output folder. When it is whole, and on the disk, it is renamed, and only
    then are older ones deleted: as by the Trainer, the newest and the best are kept, and `save_total_limit` in all. So
    a run that is killed at any moment leaves whole checkpoints; what else it leaves goes when training begins again.

    Raises:
        CheckpointWriteError: on every rank, if one of them cannot write, and nothing is left of the checkpoint. (Under
            DeepSpeed on that rank alone: the others wait within DeepSpeed, and may still write, till the launcher ends
            them.)
    """

    _staging = False
    _write_error: Exception | None = None

    def train(self, *args, **kwargs):
        if self.args.should_save:
            clear_staging(Path(self.args.output_dir))
        self.accelerator.wait_for_everyone()
        return super().train(*args, **kwargs)

    def _save_checkpoint(self, model, trial):
        folder = Path(self._get_output_dir(trial))
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        staged, checkpoint = folder / STAGING_FOLDER / name, folder / name
        self._staging, self._write_error = True, None
        try:
            super()._save_checkpoint(model, trial)
            self._record_best(folder, staged)
            _flush(staged)
        except Exception as error:
            self._write_error = self._write_error or error  # an earlier one may be the cause of this
            if not _is_write_error(self._write_error):
                raise
        finally:
            self._staging = False
        self._raise_write_error(staged, folder)
        if self.is_world_process_zero():
            self._finish(staged, checkpoint)
        self.accelerator.wait_for_everyone()
        if self.is_local_process_zero() and staged.is_dir():  # a machine with a disk of its own
            with suppress(FileNotFoundError):  # or one that has not yet seen the folder go
                self._finish(staged, checkpoint)

    def _finish(self, staged: Path, checkpoint: Path) -> None:
        _publish(staged, checkpoint)
        self._delete_surplus(checkpoint)
        _remove_if_empty(staged.parent)

    def _get_output_dir(self, trial):
        folder = super()._get_output_dir(trial)
        return os.path.join(folder, STAGING_FOLDER) if self._staging else folder

    def save_model(self, output_dir=None, _internal_call=False):
        try:
            super().save_model(output_dir, _internal_call)
        except Exception as error:
            if not _is_write_error(error) or (self._staging and self.is_deepspeed_enabled):
                raise
            if not self._staging:
                raise CheckpointWriteError(
                    self._advice("The model", _reason(error, self.args.output_dir), self.args.output_dir)
                ) from error
            self._write_error = error  # and on to where the ranks meet: the others wait there for this one

    def _record_best(self, folder: Path, staged: Path) -> None:
        """Where the best checkpoint will be: the Trainer looks beside the staged one, and writes down what it finds."""
        best_step = self.state.best_global_step
        if best_step:
            best = folder / f"{PREFIX_CHECKPOINT_DIR}-{best_step}"
            if best_step == self.state.global_step or best.is_dir():
                self.state.best_model_checkpoint = str(best)
            if self.args.should_save:
                self.state.save_to_json(staged / TRAINER_STATE_NAME)

    def _raise_write_error(self, staged: Path, folder: Path) -> None:
        error = self._write_error
        reasons = [] if error is None else [_reason(error, folder)]
        if error is None or not self.is_deepspeed_enabled:
            reasons = gather_object(reasons)
        if reasons:
            shutil.rmtree(staged, ignore_errors=True)
            _remove_if_empty(staged.parent)
            what = f"The checkpoint of step {self.state.global_step}"
            raise CheckpointWriteError(self._advice(what, reasons[0], folder)) from error

    def _advice(self, what: str, reason: str, folder: str | Path) -> str:
        last = get_last_checkpoint(folder)
        whole = f"{last} is whole: make room" if last else "No checkpoint came before: make room, and start again"
        resume = ", and go on from it with --resume_from_checkpoint true" if last else ""
        return f"{what} could not be written to {folder}, {reason}. {whole}{resume}."

    def _delete_surplus(self, newest: Path) -> None:
        limit = self.args.save_total_limit
        if limit is None or limit <= 0:
            return
        kept = {str(newest), self.state.best_model_checkpoint}
        checkpoints = sort_checkpoints(str(newest.parent), use_mtime=True)
        others = [path for path in checkpoints if path not in kept]
        for path in others[: max(len(checkpoints) - limit, 0)]:
            _delete(Path(path))

    def _finalize_training(self, trial, *args, **kwargs):
        best = self.state.best_model_checkpoint
        if self.args.should_save and self.args.save_total_limit == 1 and best is not None:
            folder = self._get_output_dir(trial)
            for path in sort_checkpoints(folder):  # which the Trainer would delete now, file by file
                if not os.path.samefile(path, best):
                    _delete(Path(path))
            _remove_if_empty(Path(folder) / STAGING_FOLDER)
        return super()._finalize_training(trial, *args, **kwargs)


def clear_staging(folder: Path) -> None:
    """Removes from an output folder what a run has left that was killed while it wrote or deleted a checkpoint.

    One that was about to be replaced is put back.
    """
    staging = folder / STAGING_FOLDER
    for replaced in staging.glob(f"{REPLACED}*"):
        checkpoint = folder / replaced.name.removeprefix(REPLACED)
        if not checkpoint.exists():
            replaced.rename(checkpoint)
    shutil.rmtree(staging, ignore_errors=True)


def _publish(staged: Path, checkpoint: Path) -> None:
    try:
        staged.rename(checkpoint)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        replaced = checkpoint.rename(staged.with_name(REPLACED + checkpoint.name))  # an older one of this step
        staged.rename(checkpoint)
        shutil.rmtree(replaced, ignore_errors=True)
    _synchronise(checkpoint.parent)


def _delete(checkpoint: Path) -> None:
    """Deletes a checkpoint at once: what is left if that breaks off is none."""
    staging = checkpoint.parent / STAGING_FOLDER
    staging.mkdir(exist_ok=True)
    shutil.rmtree(checkpoint.rename(staging / (DELETED + checkpoint.name)), ignore_errors=True)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _flush(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        with suppress(FileNotFoundError):  # another rank's temporary file
            _synchronise(path)


def _synchronise(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_write_error(error: Exception) -> bool:
    """Whether a file could not be written; libraries in Rust and C++ have their own errors for that."""
    text = str(error)
    return isinstance(error, OSError | SafetensorError) or "(os error " in text or "inline_container" in text


def _reason(error: Exception, folder: str | Path) -> str:
    """What went wrong, and the space there was: as the rank saw it whose file it was, for others look a moment later."""
    reason = "a file was not written whole" if "inline_container" in str(error) else str(error)
    return f"with {shutil.disk_usage(folder).free / 1e6:.0f} MB free: {reason}"
