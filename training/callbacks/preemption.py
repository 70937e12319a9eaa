"""SIGTERM: a scheduler wants the machine back."""

import logging
import signal
import threading
from contextlib import contextmanager
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..ranks import any_rank
from .stopping import StoppingCallback


logger = logging.getLogger(__name__)

EXIT_CODE = 128 + signal.SIGTERM  # 143, as a shell reports a process that SIGTERM ended


class Preempted(SystemExit):
    """The run was told to end, and can be resumed. Like Ctrl-C's `KeyboardInterrupt`, it ends the process: with code 143.

    Args:
        checkpoint (`Path`): where it goes on from.
    """

    def __init__(self, checkpoint: Path):
        super().__init__(EXIT_CODE)
        self.checkpoint = checkpoint


class PreemptionCallback(StoppingCallback):
    """Stops a run with a checkpoint at the end of the step in which a rank got SIGTERM.

    transformers' `enable_jit_checkpoint` lets every rank decide alone, so that they wait for each other for ever, and
    exits with 0. Here all ranks agree after each step. One that is told more than once has been told. An evaluation
    that is under way, or due after that step, is finished first; if the scheduler's patience is shorter than that and
    it kills the run, the checkpoint before is the last one. (`torchrun --shutdown_timeout` is 30 s by default.)
    """

    def __init__(self):
        self._told = False

    @contextmanager
    def listening(self):
        """Takes note of SIGTERM within; afterwards it does what it did before. Threads but the main one cannot."""
        self._told = False
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = signal.signal(signal.SIGTERM, self._hear)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, previous or signal.SIG_DFL)  # None: it was not set from Python

    def _hear(self, number, frame):
        self._told = True

    def on_step_end(self, args, state, control, **kwargs):
        if any_rank(self._told, args) and state.global_step < state.max_steps:
            checkpoint = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            self.stop(control, Preempted(checkpoint))
        super().on_step_end(args, state, control, **kwargs)

    def on_save(self, args, state, control, **kwargs):
        if self.stopped_by is not None and state.is_world_process_zero:
            logger.warning(
                f"SIGTERM: stopped after step {state.global_step} of {state.max_steps}; "
                f"--resume_from_checkpoint true goes on from {self.stopped_by.checkpoint}."
            )
