"""Resetting parts of an optimizer: the groups go on as a fresh AdamW would, however the optimizer is wrapped.

As a program, `test_optimizer_state.py FILE`, it does under DeepSpeed on every rank what its tests do in one process.
"""

import os
import sys

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from training_runs import run_on_two_ranks

from speechverse.training.optimizer_state import reset_optimizer_state


SHAPES = {"projector": (4, 3), "lora": (3, 2)}
SETTINGS = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
GATED_STEPS = 20  # in which LoRA's gradients are zero, as long as it has not joined
JOINED = range(GATED_STEPS, GATED_STEPS + 5)


class Weighted(nn.Module):
    """A parameter whose gradient is what comes in."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, gradient):
        return (self.weight * gradient).sum()


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.parts = nn.ModuleDict({n: Weighted(torch.randn(s, generator=generator)) for n, s in SHAPES.items()})

    def forward(self, gradients):
        return sum(part(gradients[name]) for name, part in self.parts.items())

    def groups(self):
        return [{"name": name, "params": list(part.parameters())} for name, part in self.parts.items()]


def gradients(step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    made = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    return made | ({"lora": torch.zeros(SHAPES["lora"])} if step < GATED_STEPS else {})


def learning_rates(optimizer, step: int):
    """As long as LoRA has no gradients, it has no learning rate either."""
    for group in optimizer.param_groups:
        group["lr"] = 0.0 if group["name"] == "lora" and step < GATED_STEPS else 0.01


def run(model, optimizer, steps) -> dict[str, torch.Tensor]:
    """Makes those steps in this process; returns the parameters."""
    for step in steps:
        learning_rates(optimizer, step)
        optimizer.zero_grad()
        model(gradients(step)).backward()
        optimizer.step()
    return {name: part.weight.detach().clone() for name, part in model.parts.items()}


def assert_reset(found: dict[str, torch.Tensor], **arguments):
    """LoRA is where a fresh optimizer would have brought it, and the projector where nothing was reset."""
    fresh, uninterrupted = Model(), Model()
    expected = run(fresh, torch.optim.AdamW(fresh.groups(), **SETTINGS, **arguments), JOINED)
    torch.testing.assert_close(found["lora"], expected["lora"], rtol=0, atol=1e-6)
    expected = run(
        uninterrupted, torch.optim.AdamW(uninterrupted.groups(), **SETTINGS, **arguments), range(JOINED.stop)
    )
    torch.testing.assert_close(found["projector"], expected["projector"], rtol=0, atol=1e-6)
    assert (found["lora"] - expected["lora"]).abs().mean() > 5e-3  # for without the reset, the updates are too small


@pytest.mark.parametrize("arguments", [{}, {"foreach": True}, {"fused": True}, {"amsgrad": True}])
@pytest.mark.parametrize("wrapped", [False, True])
def test_reset_group_goes_on_as_a_fresh_optimizer(arguments, wrapped):
    model = Model()
    optimizer = torch.optim.AdamW(model.groups(), **SETTINGS, **arguments)
    if wrapped:
        optimizer = Accelerator(cpu=True).prepare_optimizer(optimizer)
    run(model, optimizer, range(GATED_STEPS))
    reset_optimizer_state(optimizer, ["lora"])
    assert_reset(run(model, optimizer, JOINED), **arguments)


@pytest.mark.slow
def test_reset_group_goes_on_as_a_fresh_optimizer_under_zero(tmp_path):
    run_on_two_ranks(__file__, tmp_path / "found.pt")
    found = torch.load(tmp_path / "found.pt")
    for stage in (1, 2, 3):
        assert_reset(found[stage])


def run_under_zero(stage: int) -> dict[str, torch.Tensor]:
    """The same steps under DeepSpeed, LoRA reset before it joins; returns the parameters."""
    import deepspeed
    from accelerate.utils import DeepSpeedOptimizerWrapper
    from deepspeed.utils import safe_get_full_fp32_param

    Accelerator(cpu=True)  # without which its wrapper is not to be had
    model = Model()
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_clipping": 0.0,
        "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0},
        "zero_allow_untested_optimizer": True,
    }
    optimizer = torch.optim.AdamW(model.groups(), **SETTINGS)
    engine, optimizer, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    for step in range(JOINED.stop):
        if step == GATED_STEPS:
            reset_optimizer_state(DeepSpeedOptimizerWrapper(optimizer), ["lora"])  # as the Trainer has it
        learning_rates(optimizer, step)
        engine.backward(engine(gradients(step)))
        engine.step()
    return {name: safe_get_full_fp32_param(part.weight).clone() for name, part in model.parts.items()}


def test_first_update_after_a_reset_is_the_learning_rate():
    model = Model()
    optimizer = torch.optim.AdamW(model.groups(), weight_decay=0.0)
    before = run(model, optimizer, range(GATED_STEPS))
    reset_optimizer_state(optimizer, {"lora"})
    after = run(model, optimizer, JOINED[:1])
    sign = gradients(GATED_STEPS)["lora"].sign()  # bias-corrected, m / sqrt(v) is g / |g|
    torch.testing.assert_close(before["lora"] - after["lora"], 0.01 * sign, rtol=0, atol=1e-6)


def test_optimizer_that_has_taken_no_step_is_left_as_it_is():
    optimizer = torch.optim.AdamW(Model().groups())
    reset_optimizer_state(optimizer, ["lora", "projector"])
    assert not optimizer.state


def test_step_count_of_a_whole_group_is_reset():
    optimizer = torch.optim.AdamW(Model().groups())
    for group in optimizer.param_groups:
        group["step"] = 7  # where some fused optimizers keep it
    reset_optimizer_state(optimizer, ["lora"])
    assert [group["step"] for group in optimizer.param_groups] == [7, 0]


def test_unknown_group_is_refused():
    with pytest.raises(ValueError, match=r"no parameter group \['lore'\]; its groups are \['projector', 'lora'\]"):
        reset_optimizer_state(torch.optim.AdamW(Model().groups()), ["lora", "lore"])


def test_quantised_state_is_refused():
    optimizer = torch.optim.AdamW(Model().groups())
    (lora,) = optimizer.param_groups[1]["params"]
    optimizer.state[lora] = {
        "step": 3,
        "state1": torch.full(lora.shape, 128, dtype=torch.uint8),
    }  # as bitsandbytes does
    with pytest.raises(ValueError, match="AdamW keeps its state in 8 bits"):
        reset_optimizer_state(optimizer, ["lora"])
    assert optimizer.state[lora]["step"] == 3


if __name__ == "__main__":
    results = {stage: run_under_zero(stage) for stage in (1, 2, 3)}
    if os.environ["RANK"] == "0":
        torch.save(results, sys.argv[1])
