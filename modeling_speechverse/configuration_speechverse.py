"""The configuration of a SpeechVerse model: two frozen bases and the small part that learns between them."""

import math
import os
from itertools import combinations_with_replacement
from pathlib import Path

from transformers import AutoConfig, PreTrainedConfig

from .base_checkpoints import find_named_base, resolve_base


LAYER_MIXES = ("last", "learned")
INPUT_MODALITIES = ("audio", "text")

# Version of what `save_pretrained` writes. It goes up when a checkpoint can no longer be read by older code.
FORMAT_VERSION = 1

# What `pipeline` reads where this file came with a checkpoint and the package is not installed.
CUSTOM_PIPELINES = {
    "speech-instruction": {
        "impl": "pipeline_speechverse.SpeechInstructionPipeline",
        "pt": ["AutoModel"],
        "type": "multimodal",
    }
}
_IS_REMOTE_CODE = __name__.startswith("transformers_modules.")

# The paper's downsampler brings every encoder near this rate: 80 ms a frame (section 2.1).
TARGET_FRAME_RATE = 12.5


def choose_strides(frame_rate: float, num_blocks: int) -> list[int]:
    """Strides of 1 to 3, largest first, whose product brings `frame_rate` (Hz) nearest to 12.5 Hz.

    Gives the paper's [2, 2] for a 50 Hz encoder and [2, 1] for a 25 Hz one.
    """
    candidates = combinations_with_replacement((3, 2, 1), num_blocks)
    return list(min(candidates, key=lambda strides: abs(frame_rate / math.prod(strides) - TARGET_FRAME_RATE)))


def without_dropout(config: PreTrainedConfig) -> PreTrainedConfig:
    """Sets every dropout rate of `config` to 0, in place.

    The LLM is frozen, so its dropout regularises nothing; yet it has to stay in train mode, because transformers only
    checkpoints gradients there.
    """
    for name, value in config.to_dict().items():
        if "drop" in name and isinstance(value, (int, float)) and value:
            setattr(config, name, 0.0)
    return config


class SpeechVerseConfig(PreTrainedConfig):
    """Configuration of [`SpeechVerseForConditionalGeneration`].

    Args:
        audio_config (`PreTrainedConfig` or `dict`, *optional*, defaults to a `WavLMConfig`):
            The speech encoder: WavLM, HuBERT, wav2vec2, Moonshine or Whisper.
        text_config (`PreTrainedConfig` or `dict`, *optional*, defaults to a `T5Config`):
            The LLM, encoder-decoder or decoder-only. Its dropout rates are set to 0.
        audio_base (`dict`, *optional*):
            Where the encoder's frozen weights come from: `id`, `revision` and `fingerprint`. `None` when the model was
            built from its configuration; it can then only be saved whole.
        text_base (`dict`, *optional*):
            The same for the LLM.
        projector_kernel_sizes (`list[int]`, *optional*, defaults to `[3, 3]`):
            Kernel size of each Conv1d block of the downsampler, in frames. Odd numbers.
        projector_strides (`list[int]`, *optional*):
            Stride of each block. By default those whose frame rate is nearest 12.5 Hz, and then recorded here.
        layer_mix (`str`, *optional*, defaults to `"last"`):
            `"last"` projects the encoder's last hidden state (the paper's Multitask-WLM); `"learned"` projects
            1/L * sum_l w_l h_l over its L layers, with free scalars w_l (Multitask-BRQ).
        lora_config (`dict`, *optional*):
            peft's `LoraConfig` fields. `None`: the LLM has no LoRA and only the projector learns.
        audio_token_id (`int`, *optional*):
            Id of the token whose embedding is replaced by one audio frame. It may lie beyond the LLM's embedding
            matrix: its own embedding is never looked up.
        freeze_audio_tower (`bool`, *optional*, defaults to `True`):
            `False` trains the encoder as well (one comparison in Table 4 of the paper).
        input_modality (`str`, *optional*, defaults to `"audio"`):
            What was learned from. `"text"`: transcripts in place of recordings, as the paper's cascades need it; the
            projector then has learned nothing, is in no checkpoint, and recordings are refused.
        standalone (`bool`, *optional*, defaults to `False`):
            Written by `save_pretrained`: whether the checkpoint holds the frozen bases too.
        format_version (`int`, *optional*, defaults to 1):
            Version of the format in which a checkpoint was written; 1 where it does not say. What is saved is of the
            present format.

    Raises:
        ValueError: if a field has a value that cannot be, or the checkpoint is of a later format than this code knows.
    """

    model_type = "speechverse"
    sub_configs = {"audio_config": AutoConfig, "text_config": AutoConfig}

    def __init__(
        self,
        audio_config=None,
        text_config=None,
        audio_base=None,
        text_base=None,
        projector_kernel_sizes=None,
        projector_strides=None,
        layer_mix="last",
        lora_config=None,
        audio_token_id=None,
        freeze_audio_tower=True,
        input_modality="audio",
        standalone=False,
        format_version=1,  # not FORMAT_VERSION: checkpoints without a number are of the first format for ever
        **kwargs,
    ):
        if type(format_version) is not int or format_version < 1:
            raise ValueError(f"format_version is {format_version!r}; it must be a whole number of at least 1.")
        if format_version > FORMAT_VERSION:
            raise ValueError(
                f"This checkpoint is of format {format_version}; this version of speechverse reads formats up to "
                f"{FORMAT_VERSION}: upgrade speechverse, or load with trust_remote_code=True in a process that does not "
                "import it."  # where it is imported, its classes go before those that came with the checkpoint
            )
        self.audio_config = self._sub_config(audio_config, default="wavlm")
        # Where the encoder learns: SpecAugment's masks are longer than short clips, a mix needs every layer, and several
        # ranks need every parameter's gradient.
        self.audio_config.apply_spec_augment = False
        self.audio_config.layerdrop = 0.0
        self.text_config = without_dropout(self._sub_config(text_config, default="t5"))
        self.audio_base = audio_base
        self.text_base = text_base
        self.projector_kernel_sizes = [3, 3] if projector_kernel_sizes is None else list(projector_kernel_sizes)
        self.projector_strides = None if projector_strides is None else list(projector_strides)
        self.layer_mix = layer_mix
        self.lora_config = lora_config
        self.audio_token_id = audio_token_id
        self.freeze_audio_tower = freeze_audio_tower
        self.input_modality = input_modality
        self.standalone = standalone
        self.format_version = FORMAT_VERSION
        self._validate_projector()
        self._validate_input_modality()
        kwargs.pop("auto_map", None)
        if not _IS_REMOTE_CODE:  # `pipeline` would ask to trust the checkpoint's code although the package is there
            kwargs.pop("custom_pipelines", None)
        kwargs["is_encoder_decoder"] = bool(self.text_config.is_encoder_decoder)
        for name in ("pad_token_id", "eos_token_id", "bos_token_id", "decoder_start_token_id"):
            kwargs.setdefault(name, getattr(self.text_config, name, None))
        super().__init__(**kwargs)

    @property
    def auto_map(self) -> dict[str, str]:
        """Where transformers finds the classes among a checkpoint's own files, where this package is not installed."""
        model = "modeling_speechverse.SpeechVerseForConditionalGeneration"
        auto_classes = ["AutoModel", "AutoModelForMultimodalLM", "AutoModelForSpeechSeq2Seq"]
        if self.is_encoder_decoder:
            auto_classes.append("AutoModelForSeq2SeqLM")
        return {
            "AutoConfig": "configuration_speechverse.SpeechVerseConfig",
            "AutoProcessor": "processing_speechverse.SpeechVerseProcessor",
            **dict.fromkeys(auto_classes, model),
        }

    def to_dict(self):
        output = super().to_dict() | {"auto_map": self.auto_map, "custom_pipelines": CUSTOM_PIPELINES}
        for name in ("audio_base", "text_base"):
            if isinstance(output[name], os.PathLike):  # which AutoModel puts there for a while, and transformers logs
                output[name] = os.fspath(output[name])
        return output

    def find_base(self, part: str, base: str | os.PathLike | None = None, **hub_arguments) -> Path:
        """The folder of a base, found as the model finds it.

        Args:
            part (`str`): `"audio"` or `"text"`.
            base (`str` or `os.PathLike`, *optional*): a folder, name or Hub id that goes before the recorded one.
            **hub_arguments: `cache_dir`, `force_download`, `local_files_only`, `token`.

        Raises:
            FileNotFoundError: if it is nowhere, saying where it was looked for and how to get it.
            ValueError: if no base is recorded, as in a model that was built from its configuration.
        """
        if base is not None:
            return resolve_base(base, **hub_arguments)
        recorded = {"audio": self.audio_base, "text": self.text_base}[part]
        if recorded is None:
            raise ValueError(f"The configuration records no {part}_base: pass {part}_base= with its folder.")
        return find_named_base(recorded["id"], revision=recorded["revision"], **hub_arguments)

    @staticmethod
    def _sub_config(config, default: str) -> PreTrainedConfig:
        if isinstance(config, PreTrainedConfig):
            return config
        config = dict(config or {})
        return AutoConfig.for_model(config.pop("model_type", default), **config)

    def _validate_projector(self):
        if self.layer_mix not in LAYER_MIXES:
            raise ValueError(f"layer_mix is {self.layer_mix!r}; it must be one of {', '.join(LAYER_MIXES)}.")
        sizes, strides = self.projector_kernel_sizes, self.projector_strides
        if not sizes or any(not isinstance(size, int) or size < 1 or size % 2 == 0 for size in sizes):
            raise ValueError(f"projector_kernel_sizes is {sizes}; give one odd whole number for every block.")
        if strides is not None and len(strides) != len(sizes):
            raise ValueError(
                f"projector_strides has {len(strides)} entries and projector_kernel_sizes {len(sizes)}; give one of each "
                "for every block."
            )
        if strides is not None and any(not isinstance(stride, int) or stride < 1 for stride in strides):
            raise ValueError(f"projector_strides is {strides}; every stride must be a whole number of at least 1.")

    def _validate_input_modality(self):
        if self.input_modality not in INPUT_MODALITIES:
            raise ValueError(
                f"input_modality is {self.input_modality!r}; it must be one of {', '.join(INPUT_MODALITIES)}."
            )
        if self.input_modality == "text" and not self.freeze_audio_tower:
            raise ValueError(
                "input_modality: text leaves the encoder nothing to learn from: leave freeze_audio_tower true."
            )


__all__ = ["SpeechVerseConfig"]
