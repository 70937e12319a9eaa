"""How often each dataset is drawn from (section 2.4 of the paper: every dataset has a sample weight)."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .curriculum import Stage


logger = logging.getLogger(__name__)

LARGEST_RATIO = 2.0  # of a task's validation loss to the one before


@dataclass(frozen=True)
class MixtureArguments:
    """The `mixture` of a configuration.

    Args:
        temperature (`float`, *optional*, defaults to 1): a dataset of n samples is drawn from in proportion to its weight times
            n ** (1 / temperature): 1 draws every sample alike, and the higher it is, the more alike are all datasets.
        joint_share (`float`, *optional*): share of the draws that all joint datasets have together; by default what their weights
            and sizes make of it.
        adaptive (`float`, *optional*): follows the validation losses: by dynamic weight averaging (Liu et al. 2019, End-to-End
            Multi-Task Learning with Attention, equation 7) with this as its temperature (2 in that paper), tasks whose loss falls
            slowest are drawn more. By default nothing is followed.
    """

    temperature: float = 1.0
    joint_share: float | None = None
    adaptive: float | None = None

    def __post_init__(self):
        if self.temperature <= 0:
            raise ValueError(f"key temperature is {self.temperature}; it is above 0.")
        if self.joint_share is not None and not 0 <= self.joint_share < 1:
            raise ValueError(f"key joint_share is {self.joint_share}; it is at least 0 and below 1.")
        if self.adaptive is not None and self.adaptive <= 0:
            raise ValueError(f"key adaptive is {self.adaptive}; it is a temperature above 0.")


@dataclass(frozen=True)
class MixtureDataset:
    """The samples that one entry of `train_data` has for one task or view.

    Args:
        name (`str`): as logs call it, such as `snips/asr`.
        tasks (`tuple[str, ...]`): ids of its tasks; two or more where they are answered together.
        samples (`Sequence[int]`): indices into the training data.
        weight (`float`, *optional*, defaults to 1): its sample weight.
    """

    name: str
    tasks: tuple[str, ...]
    samples: Sequence[int]
    weight: float = 1.0


class Mixture:
    """Shares of the datasets in each stage.

    Args:
        datasets (`list[MixtureDataset]`): the datasets.
        arguments ([`MixtureArguments`], *optional*): how sizes, joint tasks and validation losses count.
    """

    def __init__(self, datasets: list[MixtureDataset], arguments: MixtureArguments | None = None):
        self.datasets = list(datasets)
        self.arguments = arguments or MixtureArguments()
        self.adjustments: list[tuple[int, dict[str, float]]] = []  # from which step on -> factor by task
        self.last_losses: list[dict[str, float]] = []  # of the last two evaluations, the older first

    def check(self, stage: Stage, batch_size: int) -> None:
        """Refuses a stage that its datasets cannot fill.

        Raises:
            ValueError: if a weight names no dataset and no task, nothing is drawn from, or an optimizer step would have to take
                a sample twice.
        """
        taught = {task for dataset in self.datasets for task in dataset.tasks}
        if unknown := [task for task in stage.tasks or [] if task not in taught]:
            raise ValueError(
                f"stage {stage.name!r}: tasks names {unknown[0]!r}, which train_data do not teach; they teach "
                f"{', '.join(sorted(taught)) or 'no task'}."
            )
        known = {d.name for d in self.datasets} | {"+".join(d.tasks) for d in self.datasets if d.tasks}
        if unknown := [name for name in stage.weights if name not in known]:
            raise ValueError(
                f"stage {stage.name!r}: weights names {unknown[0]!r}, no dataset and no task; "
                f"there are {', '.join(sorted(known))}."
            )
        shares = self.shares(stage)
        if not shares.any():
            raise ValueError(
                f"stage {stage.name!r} learns {', '.join(stage.tasks or ['all tasks'])}: train_data have nothing of it, or "
                "all of it has weight 0."
            )
        size = self.size(stage)
        if size < batch_size:
            raise ValueError(
                f"stage {stage.name!r} has {size} samples, fewer than the {batch_size} of an optimizer step on all ranks: lower "
                "per_device_train_batch_size, gradient_accumulation_steps or effective_batch_size."
            )

    def size(self, stage: Stage) -> int:
        """Samples that a stage draws from."""
        return sum(len(d.samples) for d, share in zip(self.datasets, self.shares(stage), strict=True) if share > 0)

    def shares(self, stage: Stage, step: int = 0) -> np.ndarray:
        """Each dataset's share of the draws, `(num_datasets,)`, float64; they sum to 1, or are all 0.

        Args:
            stage ([`Stage`]): what is learned.
            step (`int`, *optional*, defaults to 0): the adjustments known by then count.
        """
        factors = self._factors(step)
        shares = np.array([self._raw_share(dataset, stage, factors) for dataset in self.datasets])
        joint = np.array([len(dataset.tasks) > 1 for dataset in self.datasets], dtype=bool)
        if self.arguments.joint_share is not None and shares[joint].any() and shares[~joint].any():
            shares[joint] *= self.arguments.joint_share / shares[joint].sum()
            shares[~joint] *= (1 - self.arguments.joint_share) / shares[~joint].sum()
        return shares / shares.sum() if shares.any() else shares

    def _raw_share(self, dataset: MixtureDataset, stage: Stage, factors: dict[str, float]) -> float:
        if not dataset.samples or not stage.teaches(dataset.tasks):
            return 0.0
        task = "+".join(dataset.tasks)
        weight = dataset.weight * stage.weights.get(dataset.name, stage.weights.get(task, 1.0))
        return weight * factors.get(task, 1.0) * len(dataset.samples) ** (1 / self.arguments.temperature)

    def _factors(self, step: int) -> dict[str, float]:
        known = [factors for first_step, factors in self.adjustments if first_step <= step]
        return known[-1] if known else {}

    # What evaluations decide

    def note_evaluation(self, step: int, losses: dict[str, float]) -> dict[str, float] | None:
        """Takes in an evaluation; gives the tasks' new factors from this step on, if they follow the losses.

        Args:
            step (`int`): optimizer steps done.
            losses (`dict[str, float]`): validation loss by task.
        """
        if self.arguments.adaptive is None:
            return None
        self.last_losses = [*self.last_losses, dict(losses)][-2:]
        if len(self.last_losses) < 2:
            return None
        before, now = self.last_losses
        both = [task for task in now if before.get(task, 0) > 0 and math.isfinite(now[task] / before[task])]
        if not both:
            return None
        # A loss that multiplies must not leave nothing for the other tasks.
        pace = {task: min(now[task] / before[task], LARGEST_RATIO) for task in both}
        exponentials = {task: math.exp(ratio / self.arguments.adaptive) for task, ratio in pace.items()}
        mean = sum(exponentials.values()) / len(exponentials)
        factors = {task: value / mean for task, value in exponentials.items()}
        self.adjustments.append((step, factors))
        return factors

    def state_dict(self) -> dict:
        """What was decided, on what the next decision rests, and what is drawn from; JSON."""
        return {"adjustments": self.adjustments, "last_losses": self.last_losses, "sizes": self._sizes}

    def load_state_dict(self, state: dict) -> None:
        """Goes on from what [`~Mixture.state_dict`] gave."""
        self.adjustments = [(step, factors) for step, factors in state["adjustments"]]
        self.last_losses = state["last_losses"]
        if (sizes := state.get("sizes", self._sizes)) != self._sizes:  # earlier checkpoints have none
            logger.warning(
                f"The run that is resumed drew from other data: {sizes}; this one draws from {self._sizes}."
            )

    @property
    def _sizes(self) -> dict[str, int]:
        return {dataset.name: len(dataset.samples) for dataset in self.datasets}
