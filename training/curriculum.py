"""Which parts of the model learn which tasks, when, and how fast: the stages of a run (section 2.3 of the paper)."""

import dataclasses
import functools
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from transformers import get_scheduler


logger = logging.getLogger(__name__)

PARTS = ("projector", "lora", "audio_tower")  # what can learn; the optimizer's groups are named after them


@dataclass(frozen=True)
class Plateau:
    """When a stage ends before its time: its validation loss has not improved for a while.

    Args:
        patience (`int`): so many evaluations in a row without a new lowest loss end the stage.
        task (`str`, *optional*): whose validation loss; by default the mean over all validated tasks that the stage teaches.
    """

    patience: int
    task: str | None = None

    def __post_init__(self):
        if not isinstance(self.patience, int) or self.patience < 1:
            raise ValueError(f"key patience is {self.patience!r}; it is a whole number of evaluations, at least 1.")


@dataclass(frozen=True)
class Stage:
    """A part of a run.

    Args:
        name (`str`): how logs, plots and the record call it.
        tasks (`list[str]`, *optional*): ids of the tasks that are learned; by default all. A joint sample is learned where all
            of its tasks are.
        trains (`list[str]`, *optional*): what learns, of `projector` (the layer mix with it), `lora` and `audio_tower`; by default
            all that can. What does not learn keeps its weights: LoRA that starts at zero then has no effect.
        steps (`int`, *optional*): optimizer steps, at most.
        epochs (`float`, *optional*): the same, in passes over the stage's samples. One of the two is given.
        until ([`Plateau`], *optional*): ends the stage when the validation loss improves no more.
        learning_rate (`float` or `dict[str, float]`, *optional*): peak, for all parts or by part; by default the run's.
        warmup_steps (`int` or `dict[str, int]`, *optional*): from zero to the peak, from the stage's first step; by default the
            run's for a part that did not learn in the stage before, and 0 for one that goes on learning.
        lr_scheduler_type (`str`, *optional*): what follows the warm-up, one of transformers' schedules over the stage's length; by
            default the run's in the last stage, and `constant` before.
        weights (`dict[str, float]`, *optional*): factors of sample weights by dataset, as in `corpus/view`, or by task.
    """

    name: str
    tasks: list[str] | None = None
    trains: list[str] | None = None
    steps: int | None = None
    epochs: float | None = None
    until: Plateau | None = None
    learning_rate: float | dict[str, float] | None = None
    warmup_steps: int | dict[str, int] | None = None
    lr_scheduler_type: str | None = None
    weights: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"stage {self.name!r} needs steps or epochs, one of them; until ends it earlier.")
        if (length := self.steps if self.epochs is None else self.epochs) <= 0:
            raise ValueError(f"stage {self.name!r} is to last {length}; give more than 0.")
        if self.tasks is not None and not self.tasks:
            raise ValueError(f"stage {self.name!r}: key tasks is empty; leave it out for all tasks.")
        if negative := [name for name, weight in self.weights.items() if weight < 0]:
            raise ValueError(f"stage {self.name!r}: the weight of {negative[0]} is below 0.")
        if self.trains is not None and (not self.trains or set(self.trains) - set(PARTS)):
            raise ValueError(f"stage {self.name!r}: key trains is {self.trains}; it lists some of {', '.join(PARTS)}.")
        for key in ("learning_rate", "warmup_steps"):
            value = getattr(self, key)
            learns = PARTS if self.trains is None else self.trains
            if isinstance(value, dict) and (unknown := set(value) - set(learns)):
                raise ValueError(f"stage {self.name!r}: {key} names {', '.join(unknown)}, which does not learn in it.")
            if any(number < 0 for number in (value.values() if isinstance(value, dict) else [value or 0])):
                raise ValueError(f"stage {self.name!r}: key {key} is {value}; it is not below 0.")

    def teaches(self, tasks: tuple[str, ...]) -> bool:
        """Whether a sample of these tasks is learned in this stage; one without a task is where all are."""
        return self.tasks is None or (bool(tasks) and set(tasks) <= set(self.tasks))


def default_stages(
    tasks: list[tuple[str, ...]], epochs: float, max_steps: int | None = None, *, aligned: bool = False
) -> list[Stage]:
    """The paper's three stages where there is ASR beside other tasks; two for ASR alone; else one.

    Args:
        tasks (`list[tuple[str, ...]]`): ids of each dataset's task, or tasks.
        epochs (`float`): passes over the data in the last stage; the others take one pass over the ASR data, since the paper
            does not say how long they were.
        max_steps (`int`, *optional*): optimizer steps of the whole run, in place of all this; a fifth of them for each stage but
            the last.
        aligned (`bool`, *optional*, defaults to `False`): whether the projector has learned what the first stage teaches, as
            `align_projector.py` does.
    """
    last = {"epochs": epochs} if max_steps is None else {"steps": max_steps}  # of which what is left is taken
    first = {"epochs": 1} if max_steps is None else {"steps": max(1, max_steps // 5)}
    if ("asr",) not in tasks:
        return [Stage("all tasks", **last)]
    align = [] if aligned else [Stage("projector on ASR", tasks=["asr"], trains=["projector"], **first)]
    if set(tasks) == {("asr",)}:
        return [*align, Stage("LoRA joins", **last)]
    return [*align, Stage("LoRA joins, ASR", tasks=["asr"], **first), Stage("all tasks", **last)]


class Curriculum:
    """The stages of a run on its line of optimizer steps.

    Everything is a function of the step and of the early ends, which are decided at evaluations alone and are part of the
    trainer's state: so a resumed run goes on where the other one would have gone.

    Args:
        stages (`list[Stage]`): the stages, in order, each with what it trains.
        lengths (`list[int]`): of each, in optimizer steps, at most.
        learning_rates (`dict[str, float]`): the run's peak by part, for stages that give none.
        warmup_steps (`float`, *optional*, defaults to 0): the run's, for a part that joins in a stage that gives none, but at most
            half of the stage; below 1, it is a share of the stage.
        lr_scheduler_type (`str`, *optional*, defaults to `"constant"`): the run's, for the last stage.
        lr_scheduler_kwargs (`dict`, *optional*): what that schedule takes beside its lengths.
    """

    def __init__(
        self,
        stages,
        lengths,
        learning_rates,
        warmup_steps: float = 0,
        lr_scheduler_type: str = "constant",
        lr_scheduler_kwargs: dict | None = None,
    ):
        if not stages:
            raise ValueError("A curriculum has one stage at least.")
        self.stages = list(stages)
        self.lengths = list(lengths)
        self.learning_rates = learning_rates
        self.warmup_steps = warmup_steps
        self.lr_scheduler_type = lr_scheduler_type
        self.lr_scheduler_kwargs = lr_scheduler_kwargs or {}
        self.early_ends: dict[int, int] = {}  # stage -> the first step after it
        self.best_loss = math.inf  # of the current stage
        self.evaluations_since_best = 0
        for index, stage in enumerate(self.stages):  # a schedule that there is not should be found out now
            self.learning_rate(stage.trains[0], self.first_step(index))

    # Where the stages lie

    def first_step(self, index: int) -> int:
        """The first step of a stage, or of what follows the last one, as far as is known now."""
        if index == 0:
            return 0
        return self.early_ends.get(index - 1, self.first_step(index - 1) + self.lengths[index - 1])

    @property
    def max_steps(self) -> int:
        """Steps of the whole run, as far as is known now."""
        return self.first_step(len(self.stages))

    def index_at(self, step: int) -> int:
        """Which stage a step is in; the last one after the end."""
        return max(i for i in range(len(self.stages)) if self.first_step(i) <= step or i == 0)

    def joining(self, index: int) -> list[str]:
        """The parts that learn in a stage and did not in the one before."""
        before = self.stages[index - 1].trains if index else []
        return [part for part in self.stages[index].trains if part not in before]

    # How fast

    def learning_rate(self, part: str, step: int) -> float:
        """A part's learning rate in a step; 0 where it does not learn."""
        index = self.index_at(step)
        stage = self.stages[index]
        if part not in stage.trains:
            return 0.0
        peak = _of_part(stage.learning_rate, part)
        warmup = _of_part(stage.warmup_steps, part)
        if warmup is None:
            warmup = self._default_warmup(self.lengths[index]) if part in self.joining(index) else 0
        of_run = stage.lr_scheduler_type is None and index == len(self.stages) - 1
        shape = self.lr_scheduler_type if of_run else stage.lr_scheduler_type or "constant"
        arguments = tuple(sorted(self.lr_scheduler_kwargs.items())) if of_run else ()
        factor = _schedule(shape, warmup, self.lengths[index], arguments)(step - self.first_step(index))
        return (self.learning_rates[part] if peak is None else peak) * factor

    def _default_warmup(self, length: int) -> int:
        steps = self.warmup_steps if self.warmup_steps >= 1 else self.warmup_steps * length
        return min(math.ceil(steps), length // 2)

    # What evaluations decide

    def note_evaluation(self, step: int, losses: dict[str, float]) -> str | None:
        """Takes in an evaluation; tells why the stage ends with it, or `None`.

        Args:
            step (`int`): optimizer steps done.
            losses (`dict[str, float]`): validation loss by task.

        Raises:
            ValueError: if the stage waits for the loss of a task that was not evaluated.
        """
        if step == 0:
            return None
        index = self.index_at(step - 1)
        stage = self.stages[index]
        if stage.until is None or self.index_at(step) != index:
            self._forget_losses()
            return None
        loss = self._watched_loss(stage, losses)
        if loss < self.best_loss:
            self.best_loss, self.evaluations_since_best = loss, 0
        else:
            self.evaluations_since_best += 1
        if self.evaluations_since_best < stage.until.patience:
            return None
        self.early_ends[index] = step
        reason = (
            f"{stage.until.task or 'mean'} validation loss has not fallen below {self.best_loss:.4f} for "
            f"{self.evaluations_since_best} evaluations"
        )
        self._forget_losses()
        return reason

    def _watched_loss(self, stage: Stage, losses: dict[str, float]) -> float:
        if stage.until.task is not None:
            if stage.until.task not in losses:
                raise ValueError(
                    f"stage {stage.name!r} waits for the validation loss of {stage.until.task}, which eval_data lack; "
                    f"they have {', '.join(losses) or 'none'}."
                )
            return losses[stage.until.task]
        own = [loss for task, loss in losses.items() if stage.teaches(tuple(task.split("+")))]
        if not own:
            raise ValueError(f"stage {stage.name!r} has until, but eval_data hold none of its tasks.")
        return sum(own) / len(own)

    def _forget_losses(self) -> None:
        self.best_loss, self.evaluations_since_best = math.inf, 0

    # What a checkpoint keeps

    def state_dict(self) -> dict:
        """What was decided, and on what the next decision rests; JSON."""
        return {
            "lengths": self.lengths,
            "early_ends": {str(index): step for index, step in self.early_ends.items()},
            "best_loss": None if math.isinf(self.best_loss) else self.best_loss,
            "evaluations_since_best": self.evaluations_since_best,
        }

    def load_state_dict(self, state: dict) -> None:
        """Goes on from what [`~Curriculum.state_dict`] gave; stages that have another length now are told of."""
        if state.get("lengths", self.lengths) != self.lengths:
            logger.warning(
                f"The stages were planned for {state['lengths']} steps, and now are for {self.lengths} (another curriculum, batch "
                "size or number of ranks): the run goes on by the new plan from its step on, and is not what it would have been."
            )
        self.early_ends = {int(index): step for index, step in state["early_ends"].items()}
        self.best_loss = math.inf if state["best_loss"] is None else state["best_loss"]
        self.evaluations_since_best = state["evaluations_since_best"]

    def record(self, step: int) -> list[dict]:
        """What became of the stages by that step: `name`, `first_step` (`None`: never reached), `steps`, `end`."""
        rows = []
        for index, stage in enumerate(self.stages):
            first, after = self.first_step(index), min(step, self.first_step(index + 1))
            begun = first < step
            end = None
            if begun and step >= self.first_step(index + 1):
                end = "plateau of the validation loss" if index in self.early_ends else "length"
            rows.append(
                {
                    "name": stage.name,
                    "tasks": stage.tasks,
                    "trains": stage.trains,
                    "first_step": first if begun else None,
                    "steps": after - first if begun else 0,
                    "end": end,
                }
            )
        return rows


def plan_curriculum(
    stages: list[Stage],
    parts: list[str],
    count_samples: Callable[[Stage], int],
    batch_size: int,
    max_steps: int | None = None,
    **arguments,
) -> Curriculum:
    """Lays the stages on a line of optimizer steps.

    Args:
        stages (`list[Stage]`): the stages, in order.
        parts (`list[str]`): what can learn in the model; a stage that says nothing trains all of it.
        count_samples (`Callable[[Stage], int]`): tells how many samples a stage draws from.
        batch_size (`int`): samples of an optimizer step, on all ranks together.
        max_steps (`int`, *optional*): where the run ends at the latest; stages beyond are left out.
        arguments: of [`Curriculum`].

    Raises:
        ValueError: if a stage trains what cannot learn.
    """
    planned, lengths, left_out = [], [], []
    for stage in stages:
        if unable := set(stage.trains or []) - set(parts):
            raise ValueError(
                f"stage {stage.name!r} trains {', '.join(sorted(unable))}, which cannot learn in this model (see lora_rank and "
                "freeze_audio_tower)."
            )
        length = stage.steps or max(1, math.ceil(stage.epochs * count_samples(stage) / batch_size))
        if max_steps is not None:
            length = min(length, max_steps - sum(lengths))
        if length > 0:
            planned.append(dataclasses.replace(stage, trains=stage.trains or list(parts)))
            lengths.append(length)
        else:
            left_out.append(stage.name)
    if left_out:
        logger.warning(f"max_steps is {max_steps}: nothing is left for the stages {', '.join(left_out)}.")
    return Curriculum(planned, lengths, **arguments)


def _of_part(value, part: str):
    return value.get(part) if isinstance(value, dict) else value


@functools.lru_cache
def _schedule(name: str, warmup_steps: int, length: int, arguments: tuple = ()):
    """transformers' own schedule as a function: step of the stage -> factor of the peak."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    name = "constant_with_warmup" if name == "constant" else name
    try:
        scheduler = get_scheduler(name, optimizer, warmup_steps, length, dict(arguments))
    except TypeError as error:
        raise ValueError(f"lr_scheduler_type {name} needs other lr_scheduler_kwargs: {error}.") from error
    if not isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR):
        raise ValueError(
            f"lr_scheduler_type {name} is no function of the step alone; take linear, cosine or constant."
        )
    return scheduler.lr_lambdas[0]
