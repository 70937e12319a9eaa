"""A step that does not fit into memory says what it was, and what helps."""

import re
from types import SimpleNamespace

import pytest
import torch

from speechverse.training.out_of_memory import describe_peak, is_out_of_memory


def allocator_error() -> RuntimeError:
    """PyTorch's own, of a CPU."""
    try:
        torch.empty(2**60, dtype=torch.uint8)
    except RuntimeError as error:
        return error


GPU_ERROR = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of ..."
)


@pytest.fixture
def run_out(make_trainer, monkeypatch):
    """Trains until memory runs out in the second step; returns the error, and the trainer."""

    def run_out(error, **arguments):
        trainer = make_trainer(**arguments)
        forward = trainer.model.forward

        def failing(*args, **kwargs):
            if trainer.state.global_step == 1:
                raise error
            return forward(*args, **kwargs)

        monkeypatch.setattr(trainer.model, "forward", failing)
        with pytest.raises(type(error)) as raised:
            trainer.train()
        return raised.value, trainer

    return run_out


@pytest.mark.parametrize("error", [GPU_ERROR, allocator_error()], ids=["gpu", "cpu"])
def test_error_of_the_same_type_says_what_it_was_and_what_helps(error, run_out):
    raised, trainer = run_out(error, max_steps=2, per_device_train_batch_size=8)
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(8)])
    assert type(raised) is type(error) and raised.__cause__ is error
    assert re.fullmatch(
        r"Step 2 ran out of memory\. Its micro-batch had 8 recordings of up to 0\.79 s, texts of up to \d+ tokens, "
        rf"labels of up to {batch['labels'].shape[1]} tokens\. What helps: halve per_device_train_batch_size, now 8, and "
        r"double gradient_accumulation_steps, now 1, which gives the same result; bf16: true; dtype: bfloat16, for the "
        r"frozen bases; cache_features: true; activation_checkpointing: true, which computes more; leave out the longest "
        r"recordings\.",
        str(raised),
    )
    assert batch["input_values"].shape[-1] == round(0.79 * 16_000)


def test_what_a_run_does_already_is_not_advised(run_out):
    raised, _ = run_out(
        GPU_ERROR,
        max_steps=2,
        per_device_train_batch_size=1,
        bf16=True,
        activation_checkpointing=True,
        model_arguments={"dtype": "bfloat16", "layer_mix": "learned"},
    )
    assert str(raised).endswith("What helps: leave out the longest recordings.")


def test_other_errors_are_left_alone(run_out):
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    raised, _ = run_out(error, max_steps=2)
    assert raised is error


@pytest.mark.parametrize(
    "message, expected",
    [
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("MPS backend out of memory (MPS allocated: 9.0 GB)", True),
        ("CUDA error: device-side assert triggered", False),
    ],
)
def test_every_library_has_its_own_words(message, expected):
    assert is_out_of_memory(RuntimeError(message)) is expected


def test_peak_is_told_where_there_is_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=80 * 2**30))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 77 * 2**30)
    assert describe_peak(torch.device("cuda:1")) == "; the peak was 77.0 of 80.0 GiB"
    assert describe_peak(torch.device("cpu")) == ""
