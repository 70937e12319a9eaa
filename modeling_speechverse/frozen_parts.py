"""Loads the two frozen parts, the encoder and the LLM: each from its own base, or both from one whole checkpoint."""

import copy
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from .audio_encoders import audio_encoder_family
from .placement import Placement, place, settle, take_off_hooks, tensors_named_alone


# Where a whole checkpoint keeps the parts, and what their own classes call the same weights.
AUDIO_TOWER_IN_WHOLE = {r"^audio_tower\.": ""}
LANGUAGE_MODEL_IN_WHOLE = {r"^language_model\.": "", r"\.base_layer\.": "."}


def language_model_class(text_config: PreTrainedConfig) -> type:
    """The Auto class of an LLM's configuration."""
    return AutoModelForSeq2SeqLM if text_config.is_encoder_decoder else AutoModelForCausalLM


def attention_of_parts(attn_implementation: str | dict | None) -> dict:
    """A string is the LLM's attention, since not every encoder has them all; "eager" is everyone's."""
    if isinstance(attn_implementation, dict):
        return attn_implementation
    audio = {"audio_config": "eager"} if attn_implementation == "eager" else {}
    return {"text_config": attn_implementation, **audio}


@dataclass
class FrozenPartsLoader:
    """How the encoder and the LLM are to be loaded.

    Args:
        config ([`SpeechVerseConfig`]): the model's configuration.
        from_whole (`bool`): whether the folders are those of a whole checkpoint, rather than of the bases.
        dtype (`str` or `torch.dtype`): `"auto"` keeps each part's own.
        attn_implementation (`dict`): by `audio_config` and `text_config`, see [`attention_of_parts`].
        quantization_config (*optional*): of the LLM.
        placement ([`Placement`], *optional*): where the parts go.
        offload_folder (`str` or `os.PathLike`, *optional*): for what is offloaded to the disk and cannot stay in its
            checkpoint.
    """

    config: PreTrainedConfig
    from_whole: bool
    dtype: str | torch.dtype
    attn_implementation: dict[str, str | None]
    quantization_config: object | None
    placement: Placement | None
    offload_folder: str | None

    def __post_init__(self):
        base_is_quantised = getattr(self.config.text_config, "quantization_config", None) is not None
        is_quantised = self.quantization_config is not None or base_is_quantised
        if is_quantised and self.placement is not None and self.placement.offloads("language_model"):
            raise ValueError(
                "A quantised LLM cannot be offloaded, and device_map sends layers of it to the CPU or the disk: leave "
                "more memory to the devices, or leave quantization_config out."
            )

    @property
    def is_spread(self) -> bool:
        return self.placement is not None and self.placement.is_spread

    def audio_tower(self, folder: Path) -> PreTrainedModel:
        """The encoder alone, also where its base has a decoder."""
        family = audio_encoder_family(self.config.audio_config)
        with torch.device("meta"):
            skeleton = family.build()
        base_keys = None if family.tower_keys is None else {family.tower_keys: ""}
        tower, offload_index = self._load(
            type(skeleton),
            folder,
            "audio_tower",
            self.config.audio_config,
            key_mapping=AUDIO_TOWER_IN_WHOLE if self.from_whole else base_keys,
            attn_implementation=self.attn_implementation.get("audio_config"),
        )
        if self.is_spread:
            # WavLM reads its layers' weights around their modules, so each layer has to be brought in whole.
            layer_class = type(family.layers_of(tower)[0]).__name__
            part = self.placement.part("audio_tower")
            settle(tower, part, self.placement.main_device, offload_index, whole_modules=[layer_class])
        return tower

    def language_model(self, folder: Path) -> PreTrainedModel:
        """The LLM, quantised if that was asked for."""
        config = self.config.text_config
        language_model, offload_index = self._load(
            language_model_class(config),
            folder,
            "language_model",
            config,
            key_mapping=LANGUAGE_MODEL_IN_WHOLE if self.from_whole else None,
            attn_implementation=self.attn_implementation.get("text_config"),
            quantization_config=self.quantization_config,
        )
        if self.quantization_config is not None and not hasattr(config, "quantization_config"):
            # How the LLM was loaded this time is not how the checkpoint has to be loaded next time.
            del language_model.config.quantization_config
        keep_untied_head(language_model, offload_index)
        if self.is_spread:
            language_model.tie_weights(recompute_mapping=False)  # offloading made one tensor of every name
            part = self.placement.part("language_model")
            settle(language_model, part, self.placement.main_device, offload_index)
        return language_model

    def _load(self, model_class, folder, name, config, *, key_mapping, **arguments) -> tuple[PreTrainedModel, dict]:
        if self.placement is not None:
            arguments["device_map"] = self.placement.part(name)
        if self.offload_folder is not None:
            arguments["offload_folder"] = Path(self.offload_folder) / name  # the parts have names in common
        with _silent_about_other_parts(key_mapping is not None), tensors_named_alone():
            part, info = model_class.from_pretrained(
                folder, config=config, dtype=self.dtype, key_mapping=key_mapping, output_loading_info=True, **arguments
            )
        if key_mapping is not None and info["missing_keys"]:
            missing = sorted(info["missing_keys"])
            raise ValueError(f"{folder} lacks {len(missing)} weights of the {name}: {', '.join(missing[:5])}.")
        offload_index = take_off_hooks(part)
        for key, source in part.all_tied_weights_keys.items():
            if source in offload_index:  # of weights that transformers had to copy to the disk, it names one alone
                offload_index.setdefault(key, offload_index[source])
        return part, offload_index


def place_parts(model_class, config, *, dtype, device_map, max_memory, quantization_config) -> Placement | None:
    """Where the parts of a model go. The projector computes beside the encoder, and a part that learns stays."""
    stay = ("multi_modal_projector",) if config.freeze_audio_tower else ("multi_modal_projector", "audio_tower")
    return place(_skeleton_maker(model_class, config, dtype), device_map, max_memory, stay, quantization_config)


def _skeleton_maker(model_class, config, dtype) -> Callable[[], nn.Module]:
    """The model on the meta device, in the dtypes that its parts will have, and without LoRA, which is small."""

    def make_skeleton():
        plain = copy.deepcopy(config)
        plain.lora_config = None
        family = audio_encoder_family(plain.audio_config)
        with torch.device("meta"):
            tower = family.build().to(_dtype_of(dtype, plain.audio_config))
            language_model = language_model_class(plain.text_config).from_config(plain.text_config)
            language_model = language_model.to(_dtype_of(dtype, plain.text_config))
            return model_class(plain, tower, language_model)

    return make_skeleton


def _dtype_of(dtype, config: PreTrainedConfig) -> torch.dtype:
    dtype = config.dtype or torch.float32 if dtype == "auto" else dtype
    return getattr(torch, dtype) if isinstance(dtype, str) else dtype


def keep_untied_head(language_model: PreTrainedModel, offload_index: dict | None = None):
    """T5's configuration always claims a tied head. Where it is not, a later `tie_weights` must not overwrite it."""
    head, embeddings = language_model.get_output_embeddings(), language_model.get_input_embeddings()
    if head is None or _is_one_tensor(language_model, head, embeddings, offload_index or {}):
        return
    language_model.config.tie_word_embeddings = False
    language_model.all_tied_weights_keys = {
        key: target for key, target in language_model.all_tied_weights_keys.items() if "lm_head" not in key
    }


def _is_one_tensor(model, module: nn.Module, other: nn.Module, offload_index: dict) -> bool:
    """Whether two modules share their weight, be it offloaded: two names then have one place in memory or on the disk."""
    if module.weight is other.weight:
        return True
    if not module.weight.is_meta and module.weight.data_ptr() != 0:  # which is 0 for a quantised one
        return module.weight.data_ptr() == other.weight.data_ptr()
    names = {id(submodule): f"{name}.weight" for name, submodule in model.named_modules()}
    place_on_disk = offload_index.get(names[id(module)])
    return place_on_disk is not None and place_on_disk == offload_index.get(names[id(other)])


@contextmanager
def _silent_about_other_parts(silent: bool):
    """transformers would list as unexpected what belongs to the other parts of the checkpoint."""
    modeling_logger = logging.get_logger("transformers.modeling_utils")
    level = modeling_logger.level
    if silent:
        modeling_logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        modeling_logger.setLevel(level)
