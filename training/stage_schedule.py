"""Learning rates by part of the model, as the curriculum has them."""

from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class StageSchedule(LRScheduler):
    """Sets every parameter group's learning rate by its `name` and the step.

    Args:
        optimizer (`Optimizer`): its groups have a `name`; what follows the first word says how they decay.
        learning_rate (`Callable[[str, int], float]`): of a part in an optimizer step.
    """

    def __init__(self, optimizer: Optimizer, learning_rate: Callable[[str, int], float]):
        self._learning_rate = learning_rate
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        """The learning rates of the step that comes next."""
        return [self._learning_rate(g["name"].split()[0], self.last_epoch) for g in self.optimizer.param_groups]

    def state_dict(self) -> dict:
        """What a checkpoint keeps; the rates themselves follow from the curriculum's state."""
        return {"last_epoch": self.last_epoch, "_step_count": self._step_count, "_last_lr": self._last_lr}
