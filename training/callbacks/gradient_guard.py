"""Updates that would harm the model: gradients that are not finite, and explosions."""

import logging
import math
import statistics
from pathlib import Path

import torch
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..data.sample import Sample
from .bad_batches import BadBatches
from .stopping import StoppingCallback


logger = logging.getLogger(__name__)


class TrainingDiverged(RuntimeError):
    """The gradient kept exploding, or not being finite, although the learning rates had been lowered."""


class GradientGuard(StoppingCallback, ExportableState):
    """Skips updates whose gradient is not finite or explodes; where that goes on, lowers the learning rates, then stops.

    An explosion is a gradient norm, before clipping, above `factor` times the median of the latest updates that were
    made, and above `factor` times `max_grad_norm`, to which updates are clipped: where a run has learned its data, the
    median is next to nothing, and each sample that it still gets wrong stands out a thousandfold.

    A skipped update changes neither weights nor the optimizer's state, and no weight decays; the step counts all the same,
    so that schedule and data go on as they would have. After `max_skips` skips in `window` steps
    [`~GradientGuard.learning_rate_factor`] is halved; when that would be done once more than `max_lowerings` times, the
    run ends with a checkpoint and [`TrainingDiverged`]. The norm is that of all ranks, so they all decide alike. All of
    it is in the trainer's state: a resumed run does what the uninterrupted one would have done.

    The trainer hands over `norm` before each update, and losses by [`~GradientGuard.note_loss`]; its schedule multiplies by
    [`~GradientGuard.learning_rate_factor`].

    With fp16, gradients that are not finite are left to the loss scaler, which looks for its scale that way. DeepSpeed
    makes its update within the backward pass, where no callback comes between. Updates that are not finite it leaves out
    itself, on all ranks, and the schedule waits (bf16: as long as `check_grad_overflow` is on, as it is by default). An
    explosion it has clipped, and made, when its norm is known: that is counted, and lowers and stops, like a skip.

    Args:
        factor (`float`, *optional*, defaults to 10): of the median and of `max_grad_norm`, above both of which a norm is an
            explosion; 0: none is; only gradients that are not finite are skipped.
        window (`int`, *optional*, defaults to 100): updates whose norms are remembered; steps in which skips add up.
        min_norms (`int`, *optional*, defaults to 20): norms from which on their median is taken seriously.
        max_skips (`int`, *optional*, defaults to 5): skips within the window that lower the learning rates.
        max_lowerings (`int`, *optional*, defaults to 3): how often that is tried.
    """

    # Of the coming update, before clipping, over all ranks. `None`: DeepSpeed was configured not to compute it.
    norm: float | torch.Tensor | None = None

    def __init__(
        self,
        factor: float = 10.0,
        window: int = 100,
        min_norms: int = 20,
        max_skips: int = 5,
        max_lowerings: int = 3,
    ):
        self.factor = factor
        self.window = window
        self.min_norms = min_norms
        self.max_skips = max_skips
        self.max_lowerings = max_lowerings
        self._begin()

    def _begin(self) -> None:
        self._bad_batches = BadBatches()
        self.norms: list[float] = []
        self.skips: list[int] = []  # the steps within the window
        self.num_skips = self.num_bad_batches = self.num_lowerings = 0

    def state(self) -> dict:
        """What a checkpoint keeps, as [`~transformers.trainer_callback.ExportableState`] wants it."""
        arguments = ("factor", "window", "min_norms", "max_skips", "max_lowerings")
        attributes = ("norms", "skips", "num_skips", "num_bad_batches", "num_lowerings")
        return {
            "args": {name: getattr(self, name) for name in arguments},
            "attributes": {name: getattr(self, name) for name in attributes},
        }

    @property
    def learning_rate_factor(self) -> float:
        """What every learning rate is multiplied by: 1, and half of it after each lowering."""
        return 0.5**self.num_lowerings

    def reset(self) -> None:
        """Forgets norms and skips: to be called where another level of norms is to be expected."""
        self.norms, self.skips = [], []

    def note_loss(self, loss: torch.Tensor, samples: list[Sample]) -> None:
        """To be called with the loss of each micro-batch, and what it was made of.

        Args:
            loss (`torch.Tensor`): a scalar.
            samples (`list[Sample]`): are named in the log, and in `bad_batches.jsonl`, if the loss is not finite.
        """
        self._bad_batches.note(loss, samples)

    def counts(self) -> dict[str, float]:
        """For the log: updates that were skipped, batches that were bad, and the factor; nothing while all is well."""
        values = {
            "skipped_updates": self.num_skips,
            "bad_batches": self.num_bad_batches,
            "learning_rate_factor": self.learning_rate_factor,
        }
        return values if self.num_skips or self.num_bad_batches else {}

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        self._begin()
        if state.global_step and type(self).__name__ in state.stateful_callbacks:
            for name, value in state.stateful_callbacks[type(self).__name__]["attributes"].items():
                setattr(self, name, value)
        # The Trainer saves the state of callbacks only that have one already; a checkpoint of old may have none.
        state.stateful_callbacks[type(self).__name__] = self.state()

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        step = state.global_step + 1
        norm = None if self.norm is None else float(self.norm)
        finite = norm is None or math.isfinite(norm)
        self.num_bad_batches += self._bad_batches.report(args, step, together=not finite)
        if norm is None or (args.fp16 and not finite):
            return
        median = statistics.median(self.norms) if len(self.norms) >= self.min_norms else math.inf
        usual = max(median, args.max_grad_norm)
        if finite and (not self.factor or norm <= self.factor * usual):
            self.norms = [*self.norms, norm][-self.window :]
            return

        in_deepspeed = args.deepspeed_plugin is not None
        if not in_deepspeed:
            model.zero_grad()  # to None, and so unseen by the optimizer
        self.num_skips += 1
        self.skips = [*(skip for skip in self.skips if skip > step - self.window), step]
        of_what = (
            f"the median {median:.3g} of the last {len(self.norms)}" if usual == median else f"max_grad_norm {usual:g}"
        )
        bound = f"{self.factor:g} times {of_what}"
        what = f"Step {step}: the gradient's norm {norm:.3g} is {f'over {bound}' if finite else 'not finite'}"
        consequence = "DeepSpeed has clipped it" if in_deepspeed and finite else "the update is skipped"
        self._warn(state, f"{what}; {consequence} ({len(self.skips)} in {self.window} steps).")
        if len(self.skips) < self.max_skips:
            return

        self.skips = []
        if self.num_lowerings < self.max_lowerings:
            self.num_lowerings += 1
            self._warn(state, f"Step {step}: learning rates are now {self.learning_rate_factor:g} of the schedule's.")
            return
        checkpoint = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{step}"
        reason = (
            f"{what}, although the learning rates had been halved {self.num_lowerings} times; {checkpoint} has the last "
            "good weights: start again with a lower learning_rate or a longer warmup, or, if such norms are right, resume "
            "with a greater gradient_guard_factor."
        )
        self.stop(control, TrainingDiverged(reason))

    def _warn(self, state, message: str) -> None:
        if state.is_world_process_zero:
            logger.warning(message)
