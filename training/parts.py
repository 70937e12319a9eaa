"""The parts of the model that can learn: which parameters they are, and how one is kept from learning for a while."""

from contextlib import nullcontext

import torch
from torch import nn


def part_of(name: str) -> str:
    """The part that a trainable parameter belongs to: `projector`, `lora` or `audio_tower`.

    Args:
        name (`str`): the parameter's name in the model.
    """
    if ".lora_" in name:
        return "lora"
    return "audio_tower" if name.startswith("audio_tower.") else "projector"


def lora_has_learned(model: nn.Module) -> bool:
    """Whether LoRA has any effect: its B starts at zero. A model without LoRA has none that could learn, and counts as one
    that has."""
    learned = [parameter.any().item() for name, parameter in model.named_parameters() if ".lora_B." in name]
    return any(learned) or not learned


class GradientGates:
    """Makes the gradients of a part exactly zero while it is not to learn.

    Every part stays trainable and in the optimizer from the first step on: DDP and DeepSpeed look at a model once, and do not
    notice what is unfrozen later. A gate is a hook on each parameter, which they all call.

    Args:
        model (`nn.Module`): its trainable parameters get a gate.
    """

    def __init__(self, model: nn.Module):
        self._open: dict[str, bool] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                part = part_of(name)
                self._open[part] = True
                parameter.register_hook(lambda gradient, part=part: self._pass(gradient, part))

    @property
    def parts(self) -> list[str]:
        """What can learn at all."""
        return list(self._open)

    def open_only(self, parts: list[str]) -> None:
        """Lets these parts learn, and no other."""
        self._open = {part: part in parts for part in self._open}

    def _pass(self, gradient: torch.Tensor, part: str) -> torch.Tensor:
        return gradient if self._open[part] else torch.zeros_like(gradient)


def gathered(parameter: nn.Parameter):
    """A context in which a parameter is whole, also where ZeRO-3 has spread it over the ranks; all of them must enter it."""
    if not hasattr(parameter, "ds_id"):
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters([parameter])
