"""The files of a checkpoint folder, written so that plain `from_pretrained` loads them."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import PretrainedConfig


def write_json(path: Path, content: dict) -> None:
    """Write readable JSON."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_weights(folder: Path, state: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
    """Write model.safetensors with every tensor in `dtype`."""
    # Cloned, because safetensors refuses tensors that share memory and dequantised weights may be views.
    state = {name: tensor.to(dtype).clone().contiguous() for name, tensor in state.items()}
    path = folder / "model.safetensors"
    save_file(state, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors writes 0600, which other users of a shared folder cannot read


def write_config(folder: Path, config: PretrainedConfig, architecture: str, **overrides) -> None:
    """Write config.json.

    The dtype is always float32: `from_pretrained` follows it, also where the weights are stored as float16.

    Args:
        folder (`Path`): The checkpoint folder.
        config (`PretrainedConfig`): The model's configuration.
        architecture (`str`): Name of the model class, e.g. `"T5ForConditionalGeneration"`.
        overrides: Values that the config class would not write, or would write otherwise.
    """
    content = config.to_diff_dict() | {"architectures": [architecture], "dtype": "float32"} | overrides
    write_json(folder / "config.json", content)
