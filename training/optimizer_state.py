"""Starts parts of an optimizer anew in the middle of a run, also where DeepSpeed has partitioned it."""

from collections.abc import Iterable

import torch


@torch.no_grad()
def reset_optimizer_state(optimizer: torch.optim.Optimizer, group_names: Iterable[str]) -> None:
    """Sets Adam's state of some parameter groups to zero, step counts included: they go on as if no step had been taken.

    Adam divides its averages by what they can have gathered in the steps so far. Where the gradients of a group were zero
    for a thousand steps, the average of their squares is smaller still for its count, and the first updates are several times too
    large.

    Args:
        optimizer (`torch.optim.Optimizer`): a plain one, accelerate's wrapper, or DeepSpeed's of ZeRO-1, 2 or 3; under
            DeepSpeed every rank has to call this, since each holds a part of the state.
        group_names (`Iterable[str]`): the groups, by the `name` that each has beside its `params`.

    Raises:
        ValueError: if there is no group of a name, or the state is quantised or not in memory.
    """
    layers = [optimizer]
    while hasattr(layers[-1], "optimizer"):  # accelerate's wrapper holds DeepSpeed's, which holds torch's
        layers.append(layers[-1].optimizer)
    innermost, wanted = layers[-1], set(group_names)
    groups = [group for group in innermost.param_groups if group.get("name") in wanted]
    if unknown := wanted - {group["name"] for group in groups}:
        known = [group.get("name") for group in innermost.param_groups]
        raise ValueError(f"The optimizer has no parameter group {sorted(unknown)}; its groups are {known}.")
    zero3 = next((layer for layer in layers if hasattr(layer, "sub_group_to_group_id")), None)
    parameters = [p for group in groups for p in group["params"]] if zero3 is None else _partitions(zero3, groups)
    states = [innermost.state.get(parameter, {}) for parameter in parameters]
    if any(_is_quantised(value) for state in states for value in state.values()):
        raise ValueError(f"{type(innermost).__name__} keeps its state in 8 bits, where 0 need not mean zero.")
    for state in states:
        _set_to_zero(state, state.keys())
    for group in groups:
        _set_to_zero(group, group.keys() & {"step"})  # some fused optimizers count the steps of a group in one place


def _partitions(zero3, groups: list[dict]) -> list[torch.Tensor]:
    """ZeRO-3's flat parameters of some groups: it puts them into a group's `params` during a step alone."""
    if zero3.swap_optimizer or hasattr(zero3, "backup_optimizer"):
        raise ValueError(
            "DeepSpeed keeps parts of the optimizer's state elsewhere: offload it to the CPU, and all of it."
        )
    all_groups = zero3.optimizer.param_groups
    return [
        partition
        for index, partition in enumerate(zero3.fp32_partitioned_groups_flat)
        if any(all_groups[zero3.sub_group_to_group_id[index]] is group for group in groups)
    ]


def _is_quantised(value) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype is torch.uint8


def _set_to_zero(state: dict, keys) -> None:
    for key in keys:
        if isinstance(state[key], torch.Tensor):
            state[key].zero_()
        elif isinstance(state[key], (int, float)):
            state[key] = 0
