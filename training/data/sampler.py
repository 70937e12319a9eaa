"""What the data loader reads: a rank's micro-batches, step after step."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from .dataset import Draw, InstructionDataset
from .draws import StepDraws
from .micro_batches import TokenCosts, cut_into_micro_batches, padding_share


class PlannedStep(NamedTuple):
    """The samples of an optimizer step.

    Args:
        micro_batches (`list[list[Draw]]`): one for each accumulation step and rank, the ranks of one accumulation step side by
            side.
        padding (`float`): share of the step's cost that goes into padding.
        input_tokens (`dict[int, int]`): of each sample by its index, audio tokens among them.
    """

    micro_batches: list[list[Draw]]
    padding: float
    input_tokens: dict[int, int]


class StepPlanner:
    """Plans optimizer steps: which samples, in which words, in which micro-batch. Every rank plans the same.

    Args:
        draws ([`StepDraws`]): the samples of each step.
        dataset ([`InstructionDataset`]): words their instructions.
        costs ([`TokenCosts`]): what makes micro-batches alike.
        num_micro_batches (`int`): accumulation steps times ranks.
    """

    def __init__(self, draws: StepDraws, dataset: InstructionDataset, costs: TokenCosts, num_micro_batches: int):
        self.draws = draws
        self.dataset = dataset
        self.costs = costs
        self.num_micro_batches = num_micro_batches

    def plan(self, step: int) -> PlannedStep:
        """The plan of a step."""
        indices = self.draws[step]
        lengths = np.array([self.dataset.lengths(Draw(index, step)) for index in indices])
        cut = cut_into_micro_batches(lengths, self.num_micro_batches, self.costs)
        return PlannedStep(
            [[Draw(indices[place], step) for place in places] for places in cut],
            padding_share(lengths, cut, self.costs),
            dict(zip(indices, lengths[:, 1].tolist(), strict=True)),
        )


class MixtureBatchSampler(Sampler[list[Draw]]):
    """A rank's micro-batches of one round, which is what lies between two decisions.

    The Trainer calls it an epoch. A loader's workers read ahead, but never beyond the round: the next one is drawn when it is
    known what the evaluation at its start decided.

    Args:
        planner ([`StepPlanner`]): plans the steps.
        steps_per_round (`int`): optimizer steps of a round.
        current_step (`Callable[[], int]`): tells how many optimizer steps are done.
        on_plan (`Callable[[int, PlannedStep], None]`): told of every step that is planned.
        rank, world_size (`int`): of this process, and how many there are.
    """

    def __init__(
        self,
        planner: StepPlanner,
        steps_per_round: int,
        current_step: Callable[[], int],
        on_plan: Callable[[int, PlannedStep], None],
        rank: int = 0,
        world_size: int = 1,
    ):
        self.planner = planner
        self.steps_per_round = steps_per_round
        self.current_step = current_step
        self.on_plan = on_plan
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return self.steps_per_round * self.planner.num_micro_batches // self.world_size

    def __iter__(self) -> Iterator[list[Draw]]:
        current = self.current_step()
        first = current // self.steps_per_round * self.steps_per_round
        # Where a run is resumed within a round, the Trainer skips what was taken already: there is no need to plan it.
        yield from [[]] * ((current - first) * self.planner.num_micro_batches // self.world_size)
        for step in range(current, min(first + self.steps_per_round, self.planner.draws.curriculum.max_steps)):
            planned = self.planner.plan(step)
            self.on_plan(step, planned)
            yield from planned.micro_batches[self.rank :: self.world_size]
