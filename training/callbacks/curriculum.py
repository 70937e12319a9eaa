"""The curriculum as a callback: which part learns in which step, and when a stage ends."""

import logging
from collections.abc import Callable

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from ..curriculum import Curriculum
from ..optimizer_state import reset_optimizer_state
from ..parts import GradientGates
from .gradient_guard import GradientGuard


logger = logging.getLogger(__name__)


class CurriculumCallback(TrainerCallback, ExportableState):
    """Opens and closes the parts of the model as the stages have it, and ends a stage where an evaluation says so.

    What it decided is part of the trainer's state; so it is in every checkpoint.

    Args:
        curriculum ([`Curriculum`]): the stages.
        gates ([`GradientGates`]): of the model's parts.
        learning_rate (`Callable[[str, int], float]`): of a part in an optimizer step.
        guard ([`GradientGuard`]): another stage brings gradients of another size, so it starts to watch anew.
        steps_per_round (`int`): evaluations decide at multiples of it, beyond which no data are read ahead.
    """

    def __init__(
        self,
        curriculum: Curriculum,
        gates: GradientGates,
        learning_rate: Callable[[str, int], float],
        guard: GradientGuard,
        steps_per_round: int,
    ):
        self.curriculum = curriculum
        self.gates = gates
        self.learning_rate = learning_rate
        self.guard = guard
        self.steps_per_round = steps_per_round
        self._index = None  # the stage that the gates stand for

    def state(self) -> dict:
        """What a checkpoint keeps."""
        return {"args": {}, "attributes": self.curriculum.state_dict()}

    def on_train_begin(self, args, state, control, **kwargs):
        kept = state.stateful_callbacks.get(type(self).__name__)
        if state.global_step and kept:
            self.curriculum.load_state_dict(kept["attributes"])
        state.stateful_callbacks[type(self).__name__] = self.state()  # without an entry the Trainer would keep none
        state.max_steps = self.curriculum.max_steps
        self._index = None

    def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
        # An evaluation may have ended a stage since the schedule looked, a resumed run may have other rates, and the schedule
        # waits where an update was not finite.
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate(group["name"].split()[0], state.global_step)
        index = self.curriculum.index_at(state.global_step)
        if index == self._index:
            return
        self._index = index
        stage = self.curriculum.stages[index]
        self.gates.open_only(stage.trains)
        if state.global_step != self.curriculum.first_step(index):
            return  # resumed within the stage
        logger.info(f"Step {state.global_step}: stage {index + 1}, {stage.name}, trains {', '.join(stage.trains)}")
        self.guard.reset()
        # Adam has averaged zeros until now; with them in its state the first updates would be several times too large.
        joining = self.curriculum.joining(index)
        if index and joining:
            names = [group["name"] for group in optimizer.param_groups if group["name"].split()[0] in joining]
            reset_optimizer_state(optimizer, names)

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        losses = validation_losses(metrics)
        if not losses or not decides(state, self.steps_per_round):
            return
        index = self.curriculum.index_at(state.global_step - 1)
        if reason := self.curriculum.note_evaluation(state.global_step, losses):
            logger.info(f"Step {state.global_step}: stage {self.curriculum.stages[index].name} ends, {reason}")
            state.max_steps = self.curriculum.max_steps
            if state.global_step >= state.max_steps:
                control.should_training_stop = control.should_save = True


def decides(state, steps_per_round: int) -> bool:
    """Whether an evaluation now decides how a run goes on: at the end of a round, while there is something to come."""
    return 0 < state.global_step < state.max_steps and state.global_step % steps_per_round == 0


def validation_losses(metrics: dict) -> dict[str, float]:
    """The losses by task in what an evaluation gives."""
    prefix, suffix = "eval_", "_loss"
    return {
        key.removeprefix(prefix).removesuffix(suffix): value
        for key, value in (metrics or {}).items()
        if key.startswith(prefix) and key.endswith(suffix) and len(key) > len(prefix + suffix)
    }
