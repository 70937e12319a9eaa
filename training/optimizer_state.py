"""Forgetting what an optimizer has averaged."""


def reset_optimizer_state(optimizer, group_names: list[str]) -> None:
    """Zeroes the optimizer's state of the named parameter groups."""
    for group in optimizer.param_groups:
        if group["name"] in group_names:
            for parameter in group["params"]:
                for value in optimizer.state[parameter].values():
                    value.zero_()
