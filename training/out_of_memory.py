"""What to do when a training step does not fit into memory."""

from contextlib import contextmanager

import torch

from ..modeling_speechverse.audio_encoders import SAMPLING_RATE


GIBIBYTE = 2**30
# Of the audio inputs: the axis of time, the unit of length, and how many steps of the axis make one.
TIME_AXES = {
    "input_values": (-1, "s", SAMPLING_RATE),
    "input_features": (-1, "mel frames", 1),
    "audio_hidden_states": (1, "frames", 1),
}


@contextmanager
def out_of_memory_advice(trainer, inputs: dict):
    """Gives an error that says that memory has run out another message: what the micro-batch was, and what helps.

    Args:
        trainer ([`SpeechVerseTrainer`]): whose training step it is.
        inputs (`dict`): the step's micro-batch, as [`~SpeechVerseProcessor.pad`] makes it.

    Raises:
        RuntimeError: of the same type: `torch.OutOfMemoryError` on a GPU; on a CPU PyTorch has none of its own.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise type(error)(_advice(trainer, inputs)) from error


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch, or a library that it calls, found no memory."""
    signs = ("out of memory", "can't allocate memory", "ALLOC_FAILED")  # of a GPU, of a CPU, of cuBLAS
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in signs)


def _advice(trainer, inputs: dict) -> str:
    return (
        f"Step {trainer.state.global_step + 1} ran out of memory. Its micro-batch had {_describe(inputs)}"
        f"{describe_peak(trainer.args.device)}. What helps: {'; '.join(_remedies(trainer))}."
    )


def _describe(inputs: dict) -> str:
    parts = []
    for name, (axis, unit, rate) in TIME_AXES.items():
        if name in inputs:
            length = inputs[name].shape[axis] / rate
            parts.append(f"{len(inputs[name])} recordings of up to {length:.4g} {unit}")
    parts.append(f"texts of up to {inputs['input_ids'].shape[1]} tokens")
    if "labels" in inputs:
        parts.append(f"labels of up to {inputs['labels'].shape[1]} tokens")
    return ", ".join(parts)


def describe_peak(device: torch.device) -> str:
    """The most memory that this process has had on a GPU; nothing of a CPU, which does not tell."""
    if device.type != "cuda":
        return ""
    total = torch.cuda.get_device_properties(device).total_memory
    return f"; the peak was {torch.cuda.max_memory_allocated(device) / GIBIBYTE:.1f} of {total / GIBIBYTE:.1f} GiB"


def _remedies(trainer) -> list[str]:
    """What the run does not do yet, what costs least first."""
    args, config = trainer.args, trainer.model.config
    frozen = {parameter.dtype for parameter in trainer.model.parameters() if not parameter.requires_grad}
    remedies = {
        f"halve per_device_train_batch_size, now {args.per_device_train_batch_size}, and double "
        f"gradient_accumulation_steps, now {args.gradient_accumulation_steps}, which gives the same result": (
            args.per_device_train_batch_size > 1
        ),
        "bf16: true": not args.bf16,
        "dtype: bfloat16, for the frozen bases": torch.float32 in frozen,
        "cache_features: true": config.freeze_audio_tower and config.layer_mix == "last" and not args.cache_features,
        "activation_checkpointing: true, which computes more": not args.activation_checkpointing,
        "leave out the longest recordings": True,
    }
    return [remedy for remedy, helps in remedies.items() if helps]
