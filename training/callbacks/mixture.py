"""The task mixture as a callback: what is drawn is counted, and follows the validation losses if it is to."""

import logging
from collections import Counter

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from ..data.dataset import InstructionDataset
from ..data.sampler import PlannedStep
from ..mixture import Mixture
from ..task_losses import task_name
from .curriculum import decides, validation_losses


logger = logging.getLogger(__name__)


class MixtureCallback(TrainerCallback, ExportableState):
    """Adjusts the mixture at evaluations, and counts what the steps take, on all ranks together.

    Args:
        mixture ([`Mixture`]): the datasets and their shares.
        dataset ([`InstructionDataset`]): the samples.
        steps_per_round (`int`): evaluations decide at multiples of it, beyond which no data are read ahead.
    """

    def __init__(self, mixture: Mixture, dataset: InstructionDataset, steps_per_round: int):
        self.mixture = mixture
        self.dataset = dataset
        self.steps_per_round = steps_per_round
        self._planned: dict[int, PlannedStep] = {}  # steps that the loader has begun to read
        self._counts: Counter = Counter()
        self._paddings: list[float] = []

    def state(self) -> dict:
        """What a checkpoint keeps."""
        return {"args": {}, "attributes": self.mixture.state_dict()}

    def on_train_begin(self, args, state, control, **kwargs):
        kept = state.stateful_callbacks.get(type(self).__name__)
        if state.global_step and kept:
            self.mixture.load_state_dict(kept["attributes"])
        state.stateful_callbacks[type(self).__name__] = self.state()  # without an entry the Trainer would keep none
        self._planned.clear()

    def note_plan(self, step: int, planned: PlannedStep) -> None:
        """Called by the sampler, which may be some steps ahead."""
        self._planned[step] = planned

    def on_step_end(self, args, state, control, **kwargs):
        planned = self._planned.pop(state.global_step - 1)
        self._paddings.append(planned.padding)
        for draw in (draw for batch in planned.micro_batches for draw in batch):
            checked = self.dataset.checked[draw.index]
            task = task_name(checked.sample.tasks)
            self._counts[f"samples_{task}"] += 1
            self._counts[f"seconds_{task}"] += checked.seconds or 0.0
            tokens = planned.input_tokens[draw.index]
            self._counts[f"tokens_{task}"] += (
                tokens + (checked.label_tokens or 0) * self.dataset.processor.is_encoder_decoder
            )

    def take_counts(self) -> dict[str, float]:
        """`samples_`, `seconds_` and `tokens_` by task and the mean `padding` since the last call."""
        counts = {name: round(value, 3) for name, value in self._counts.items()}
        if self._paddings:
            counts["padding"] = sum(self._paddings) / len(self._paddings)
        self._counts, self._paddings = Counter(), []
        return counts

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        losses = validation_losses(metrics)
        if not losses or not decides(state, self.steps_per_round):
            return
        if factors := self.mixture.note_evaluation(state.global_step, losses):
            shown = ", ".join(f"{task} {factor:.2f}" for task, factor in factors.items())
            logger.info(f"Step {state.global_step}: the mixture follows the validation losses: {shown}")
