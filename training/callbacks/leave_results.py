"""What a run leaves when it has ended: weights, `run.json`, pictures and a draft of the model's card."""

from pathlib import Path

from transformers import TrainerCallback

from ...model_cards.draft import refresh_card
from ..plots import save_plots
from ..run_record import describe_run, write_run_record


class LeaveResults(TrainerCallback):
    """Writes, when training ends, `run.json`, `loss.png`, `training.png` and the card next to the weights, which it saves.

    A run that was stopped before its end leaves its checkpoints alone.

    Args:
        trainer ([`SpeechVerseTrainer`]): whose run it is.
        config (`dict`): how the run was configured, as `training/train.py` says it.
    """

    def __init__(self, trainer, config: dict):
        self.trainer = trainer
        self.config = config

    def on_train_end(self, args, state, control, **kwargs):
        self.trainer.save_model()  # on every rank: DeepSpeed gathers what it has spread
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir)
        stages = self.trainer.curriculum.record(state.global_step)
        write_run_record(describe_run(self.trainer, self.config, stages), folder)
        save_plots(state.log_history, stages, folder)
        if self.trainer.model.config.input_modality == "audio":  # what learned from text alone is a baseline: no card
            refresh_card(folder, self.trainer.model)
