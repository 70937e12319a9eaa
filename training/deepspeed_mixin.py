"""What the Trainer lacks under DeepSpeed for a model of which little learns.

A checkpoint should hold what learns and nothing else, as it does without DeepSpeed. transformers leaves the frozen weights
out for a `PeftModel` alone; DeepSpeed itself keeps those of tied weights that have a second name, and its model is a copy
in bf16 of the fp32 weights that its optimizer holds in partitions.
"""

from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import PreTrainedModel
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.trainer import SCHEDULER_NAME
from transformers.utils import SAFE_WEIGHTS_NAME

from .parts import gathered


class DeepSpeedMixin:
    """Saves and resumes small checkpoints under DeepSpeed; to be named before [`~transformers.Trainer`] among the bases.

    A checkpoint holds the adapter in full precision, as a run without DeepSpeed leaves it, and in `global_step*` the
    optimizer's partitions of it. It is resumed with the number of processes and the ZeRO stage that it was saved with.
    """

    def _wrap_model(self, model, *args, **kwargs):
        if is_deepspeed_zero3_enabled():
            _gather_encoder_layers_whole(self.model)
        return super()._wrap_model(model, *args, **kwargs)

    def _prepare_for_training(self, max_steps, train_dataloader, resume_from_checkpoint):
        if resume_from_checkpoint is not None:
            self._refuse_other_launch(Path(resume_from_checkpoint))
        if resume_from_checkpoint is None or not self.is_deepspeed_enabled:
            return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        # The Trainer would look for the frozen weights in the checkpoint.
        prepared = super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint=None)
        self._load_deepspeed_checkpoint(Path(resume_from_checkpoint))
        self._load_optimizer_and_scheduler(resume_from_checkpoint)
        return prepared

    def _refuse_other_launch(self, checkpoint: Path):
        """The optimizer's state cannot be divided anew; without DeepSpeed, the Trainer would go on without any."""
        now = "without DeepSpeed"
        if self.is_deepspeed_enabled:
            stage = self.accelerator.state.deepspeed_plugin.zero_stage
            now = _name_launch(stage == 3, self.args.world_size)
        saved = _launch_of_checkpoint(checkpoint)
        if saved is not None and saved != now:
            raise ValueError(
                f"{checkpoint} was saved {saved}, and this run is {now}: resume it as it was launched, since the "
                "optimizer's state is divided accordingly."
            )

    def _load_deepspeed_checkpoint(self, checkpoint: Path):
        """Puts weights and optimizer back.

        Raises:
            ValueError: if the adapter's keys or shapes are not the model's, or DeepSpeed's part is incomplete.
        """
        self.model.read_adapter_weights(checkpoint / SAFE_WEIGHTS_NAME, from_whole=not self.model.bases_are_known)
        path, _ = self.deepspeed.load_checkpoint(str(checkpoint), load_module_strict=False)
        if path is None:
            raise ValueError(
                f"{checkpoint} holds no whole DeepSpeed checkpoint (its file `latest` is missing): resume another one."
            )

    def save_model(self, output_dir=None, _internal_call=False):
        """Saves the adapter; under DeepSpeed every rank has to call it."""
        if self.is_deepspeed_enabled:
            self._save(output_dir, state_dict=gather_state_dict(self.model))
        else:
            super().save_model(output_dir, _internal_call)

    def _save_optimizer_and_scheduler(self, output_dir):
        if not self.is_deepspeed_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        with _without_frozen_weights(self.model):
            self.deepspeed.save_checkpoint(output_dir, exclude_frozen_parameters=True)
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)


def _gather_encoder_layers_whole(model: PreTrainedModel):
    """WavLM's attention reads the weights of its parts around them, and DeepSpeed learns of that in a step alone.

    An answer that is generated before the first step would find them empty.
    """
    from deepspeed.utils import set_z3_leaf_modules

    layers = model.audio_family.layers_of(model.audio_tower)
    set_z3_leaf_modules(model, [type(layers[0])])


def gather_state_dict(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """What a checkpoint of the model holds, whole, on the CPU; every rank has to call it.

    What learns is in fp32, from the optimizer: under bf16 the model itself has rounded copies. Frozen weights are there
    if the model's bases are not known, and are as they compute.
    """
    gathered = {}
    for key, tensor in model.state_dict(keep_vars=True).items():
        if model._is_adapter_key(key) or not model.bases_are_known:
            gathered[key] = _gather(tensor).cpu()
    return gathered


def _gather(tensor: torch.Tensor) -> torch.Tensor:
    from deepspeed.utils import safe_get_full_fp32_param

    if tensor.requires_grad and (master := safe_get_full_fp32_param(tensor)) is not None:
        return master.detach()
    with gathered(tensor):
        return tensor.detach().clone()


@contextmanager
def _without_frozen_weights(model: PreTrainedModel):
    """While the context is open, the model's state dict holds what learns alone, under whatever names."""

    def drop_frozen(module, state_dict, prefix, local_metadata):
        for key in [key for key in state_dict if not model._is_adapter_key(key)]:
            del state_dict[key]

    hook = model.register_state_dict_post_hook(drop_frozen)
    try:
        yield
    finally:
        hook.remove()


def _launch_of_checkpoint(checkpoint: Path) -> str | None:
    """The launch that a checkpoint's optimizer state belongs to; `None` if it is in one piece."""
    partitions = list(checkpoint.glob("global_step*/*_optim_states.pt"))
    is_zero3 = any(checkpoint.glob("global_step*/zero_pp_rank_*_model_states.pt"))
    return _name_launch(is_zero3, len(partitions)) if partitions else None


def _name_launch(is_zero3: bool, processes: int) -> str:
    return f"under ZeRO-{3 if is_zero3 else 2} by {processes} processes"
