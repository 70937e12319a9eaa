"""Moonshine: the raw-waveform encoder of UsefulSensors/moonshine-tiny, from the int8 ONNX file of its npm package."""

import re
from pathlib import Path

import numpy as np
import torch
from transformers import MoonshineConfig, MoonshineModel, Wav2Vec2FeatureExtractor

from speechverse.training.foundation_builders.foundation import Foundation
from speechverse.training.foundation_builders.onnx_weights import OnnxWeights
from speechverse.training.foundation_builders.packages import MOONSHINE_JS, fetch, read_member
from speechverse.training.foundation_builders.writing import write_config, write_weights


ENCODER_FILE = "package/dist/model/tiny/quantized/encoder_model.onnx"

# The exporter folded the affine part of the group norm into two anonymous constants.
GROUP_NORM = {"groupnorm.weight": "onnx::Mul_1488", "groupnorm.bias": "onnx::Add_1489"}


def build_moonshine_tiny_encoder(folder: Path, downloads: Path) -> None:
    """Write the encoder of moonshine-tiny; `AutoModel.from_pretrained(folder).encoder` is the way to it.

    AutoModel only knows the full encoder-decoder, so a decoder without layers and with 4 embeddings goes with it.
    """
    weights = OnnxWeights(read_member(fetch(MOONSHINE_JS, downloads), ENCODER_FILE))
    config = MoonshineConfig(decoder_num_hidden_layers=0, vocab_size=4)
    state = {f"encoder.{name}": tensor for name, tensor in encoder_state(weights).items()}
    state |= {f"decoder.{name}": tensor for name, tensor in decoder_stub(config).items()}
    feature_extractor = Wav2Vec2FeatureExtractor(
        feature_size=1, sampling_rate=16000, padding_value=0.0, do_normalize=False, return_attention_mask=True
    )

    write_config(folder, config, "MoonshineModel")
    write_weights(folder, state, torch.float32)
    feature_extractor.save_pretrained(folder)


def encoder_state(weights: OnnxWeights) -> dict[str, torch.Tensor]:
    """The encoder's weights under the names of transformers' `MoonshineEncoder`."""
    state = {ours: weights.tensor(theirs).flatten() for ours, theirs in GROUP_NORM.items()}
    for name in weights.arrays:
        if re.fullmatch(r"conv\d\.weight_quantized", name):
            state[name.removesuffix("_quantized")] = _dequantised_convolution(weights, name)
        elif re.fullmatch(r"(conv|layers|layer_norm).*\.(weight|bias)", name):
            state[name] = weights.tensor(name)
    for name, weight in weights.linear_layers():
        state[name.replace("/", ".").replace("self_attn.dense", "self_attn.o_proj") + ".weight"] = weight
    return state


def decoder_stub(config: MoonshineConfig) -> dict[str, torch.Tensor]:
    """Weights of a decoder that is never run; its random embeddings are zeroed so that every build is the same."""
    stub = MoonshineModel(config).decoder.state_dict()
    return {name: torch.zeros_like(tensor) if "embed" in name else tensor for name, tensor in stub.items()}


def _dequantised_convolution(weights: OnnxWeights, name: str) -> torch.Tensor:
    """`quantised * scale + offset`: for convolutions this graph's "zero point" is a float that is added at the end."""
    base = name.removesuffix("_quantized")
    scale, offset = weights.arrays[base + "_scale"], weights.arrays[base + "_zero_point"]
    return torch.from_numpy(weights.arrays[name].astype(np.float32) * scale + offset)


MOONSHINE_TINY_ENCODER = Foundation(
    name="moonshine-tiny-encoder",
    hub_id="UsefulSensors/moonshine-tiny",
    rebuilt_id="UsefulSensors/moonshine-tiny",
    licence="MIT",
    differs_from_original=(
        "Encoder only. Weights dequantised from the int8 ONNX (per tensor, dynamic activation quantisation removed), "
        "so they carry 8-bit rounding. The decoder is an empty stub: use AutoModel(...).encoder."
    ),
    packages=(MOONSHINE_JS,),
    build=build_moonshine_tiny_encoder,
    extras=("onnx",),
)
