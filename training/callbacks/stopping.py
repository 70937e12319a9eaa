"""Ending a run before its last step, with a checkpoint of the step that was the last one."""

from transformers import TrainerCallback


class StoppingCallback(TrainerCallback):
    """A callback that can end the run by raising `stopped_by`, an exception.

    The step is finished, and what was due after it is still done: it is part of what a resumed run takes for granted.
    Then [`SpeechVerseTrainer`] writes a checkpoint and raises, so that nothing takes the run for a finished one.
    """

    stopped_by: BaseException | None = None
    steps_per_round: int = 1  # of what the Trainer calls an epoch, where an evaluation may be due

    def stop(self, control, reason: BaseException) -> None:
        """Ends the run after this step, for that reason."""
        self.stopped_by = reason
        control.should_training_stop = True

    def on_train_begin(self, args, state, control, **kwargs):
        self.stopped_by = None

    def on_step_end(self, args, state, control, **kwargs):
        if self.stopped_by is not None:
            control.should_log = True  # of the steps since the last log, whose losses no checkpoint holds
            control.should_save = False  # the trainer does it last

    def on_epoch_end(self, args, state, control, **kwargs):
        if self.stopped_by is not None:
            control.should_save = False
            if state.global_step % self.steps_per_round:  # the Trainer takes the break for the end of an epoch
                control.should_log = control.should_evaluate = False
