"""Small checkpoints: only what was learned is saved, and it is put back beside the bases when it is loaded."""

import inspect
import os
import re
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file, logging
from transformers.utils.hub import get_checkpoint_shard_files

from .base_checkpoints import HUB_ARGUMENTS, fingerprint
from .frozen_parts import FrozenPartsLoader, attention_of_parts, keep_untied_head, place_parts
from .placement import asks_for_several_places, bring_lora_to_its_layers


logger = logging.get_logger(__name__)

DEFAULT_ADAPTER = "default"  # the name every adapter has on disk
# What the adapters of one model have in common.
SHARED_FIELDS = ("input_modality", "projector_kernel_sizes", "projector_strides", "layer_mix")
LORA_NAME = re.compile(r"(\.lora_\w+\.)([^.]+)(?=\.|$)")
# What the Auto classes and pipelines pass along that says nothing about an adapter-only checkpoint.
IGNORED_ARGUMENTS = ("trust_remote_code", "adapter_kwargs", "code_revision", "use_safetensors", "low_cpu_mem_usage")
# What leaves an argument that an adapter has no use for without effect, beside None: transformers' own defaults.
NEUTRAL_VALUES = {
    name: parameter.default
    for name, parameter in inspect.signature(PreTrainedModel.from_pretrained).parameters.items()
}
NEUTRAL_VALUES |= {"offload_buffers": False, "use_kernels": False}  # which it takes from its **kwargs


class AdapterCheckpointMixin:
    """Saves, loads, switches and merges what SpeechVerse learns: the projector and LoRA, together an adapter."""

    _keep_in_fp32_modules_strict = ["multi_modal_projector", "lora_A", "lora_B"]

    @property
    def device(self) -> torch.device:
        """Where the computing is, also where the encoder's first weights are offloaded."""
        return self.multi_modal_projector.blocks[0].conv.weight.device

    @property
    def bases_are_known(self) -> bool:
        """Whether the configuration says where the frozen bases come from, so that a checkpoint can leave them out."""
        return self.config.audio_base is not None and self.config.text_base is not None

    def _start_with_adapter(self, name: str):
        self._projectors = {}  # of the adapters that are not active
        self._lora_configs = {name: self.config.lora_config}
        self._active_adapter = name
        bring_lora_to_its_layers([layer for _, layer in self._lora_layers()], name)
        self._freeze()

    def _freeze(self):
        """Leaves gradients to the active adapter alone, in fp32: AdamW's small steps are lost in bf16."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(self._is_adapter_key(name))
            if parameter.requires_grad:
                parameter.data = parameter.data.float()

    def _is_adapter_key(self, key: str) -> bool:
        if match := LORA_NAME.search(key):
            return match[2] == self._active_adapter
        if key.startswith("audio_tower."):
            fixed = self.audio_family.fixed_parameters
            return not self.config.freeze_audio_tower and not key.startswith(tuple(f"audio_tower.{f}" for f in fixed))
        return self.config.input_modality == "audio" and key.startswith("multi_modal_projector.")

    def _adapter_state_dict(self, state_dict: dict | None = None) -> dict[str, torch.Tensor]:
        """The active adapter's tensors under the names they have on disk."""
        state_dict = self.state_dict() if state_dict is None else state_dict
        return {
            LORA_NAME.sub(rf"\g<1>{DEFAULT_ADAPTER}", key): tensor
            for key, tensor in state_dict.items()
            if self._is_adapter_key(key)
        }

    def _whole_state_dict(self, state_dict: dict | None = None) -> dict[str, torch.Tensor]:
        """Every tensor but the inactive adapters', under the names that a model with the active one alone has."""
        state_dict = self.state_dict() if state_dict is None else state_dict
        others = [name for name, layer in self._lora_layers() if self._active_adapter not in layer.lora_A]
        plain = tuple(f"language_model.{name}.base_layer." for name in others)
        whole = {}
        for key, tensor in state_dict.items():
            if LORA_NAME.search(key):
                if self._is_adapter_key(key):
                    whole[LORA_NAME.sub(rf"\g<1>{DEFAULT_ADAPTER}", key)] = tensor
            else:
                whole[key.replace(".base_layer.", ".") if key.startswith(plain) else key] = tensor
        return whole

    def save_pretrained(self, save_directory, *args, standalone: bool | None = None, state_dict=None, **kwargs):
        """Saves the active adapter, or the whole model.

        Args:
            save_directory (`str` or `os.PathLike`): the folder.
            standalone (`bool`, *optional*): `True` saves the frozen bases too. By default they are left out wherever
                the configuration says where they come from.
            *args, state_dict, **kwargs: as in `PreTrainedModel.save_pretrained`.

        Raises:
            ValueError: if the bases are to be left out although nothing says where they come from, or kept although
                the LLM is quantised; or if the weights are partitioned, and not given by `state_dict`.
        """
        if state_dict is None and any(hasattr(parameter, "ds_id") for parameter in self.parameters()):
            raise ValueError("ZeRO-3 holds this model's weights in partitions: save it by the trainer's save_model.")
        standalone = not self.bases_are_known if standalone is None else standalone
        if standalone:
            self._refuse_if_quantised("save the whole model")
        if not standalone:
            if not self.bases_are_known:
                raise ValueError(
                    "This model's bases are not known (it was built from a configuration, or merged), so its adapter "
                    "alone could not be loaded again: save it with standalone=True."
                )
            kwargs["max_shard_size"] = "1TB"  # an adapter is one file
        select = self._whole_state_dict if standalone else self._adapter_state_dict
        state_dict = select(state_dict)
        self.config.standalone = standalone
        try:
            with self._saved_with_own_code():
                super().save_pretrained(save_directory, *args, state_dict=state_dict, **kwargs)
        finally:
            self.config.standalone = False

    @contextmanager
    def _saved_with_own_code(self):
        """Lets a subclass that a user wrote be saved with our code; with its own alone nothing could be loaded.

        That subclass's file need not bring along what it imports, and `auto_map` names our classes.
        """
        own = next(base for base in type(self).__mro__ if AdapterCheckpointMixin in base.__bases__)
        theirs = type(self).__module__
        if theirs == own.__module__ or theirs.startswith("transformers_modules."):
            yield
            return
        logger.warning_once(
            f"The code of {type(self).__name__} is not saved with the checkpoint: load it by {type(self).__name__}"
            ".from_pretrained, since AutoModel takes it for a SpeechVerseForConditionalGeneration."
        )
        self.__module__ = own.__module__  # transformers copies the file of this module, and those that it imports
        try:
            yield
        finally:
            del self.__module__

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path, *model_args, config=None, audio_base=None, text_base=None, **kwargs
    ):
        """Loads a checkpoint, with its bases where it does not hold them itself.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): folder or Hub id.
            audio_base, text_base (`str`, *optional*): folder or Hub id of a base, in place of the recorded one.
            config, **kwargs: as in `PreTrainedModel.from_pretrained`: `dtype`, `device_map`, `max_memory`,
                `offload_folder`, `quantization_config` (of the LLM), `attn_implementation` (a string is the LLM's, but
                "eager" is both's; a dict names `audio_config` and `text_config`), `local_files_only`, `token`,
                `revision`, ...

        Raises:
            FileNotFoundError: if a base is not found.
            ValueError: if the adapter's weights are damaged, or do not fit the bases.
        """
        if pretrained_model_name_or_path is None:
            return cls._from_whole_checkpoint(None, *model_args, config=config, **kwargs)
        hub_arguments = {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}
        location = hub_arguments | {name: kwargs[name] for name in ("revision", "subfolder") if name in kwargs}
        if not isinstance(config, PreTrainedConfig):
            config = cls.config_class.from_pretrained(config or pretrained_model_name_or_path, **location)
        given = {name: getattr(config, name) for name in ("audio_base", "text_base")}
        if any(isinstance(base, (str, os.PathLike)) for base in given.values()):
            # AutoModel took audio_base= and text_base= for fields of the configuration: they overwrote what is recorded.
            recorded, _ = cls.config_class.get_config_dict(pretrained_model_name_or_path, **location)
            audio_base, text_base = (None if isinstance(base, dict) else base for base in given.values())
            config.audio_base, config.text_base = recorded["audio_base"], recorded["text_base"]
        if config._attn_implementation is not None:  # one word for all, which AutoModel has put into the configuration
            config.audio_config._attn_implementation = None
        is_whole = config.standalone or config.audio_base is None
        in_parts = asks_for_several_places(kwargs.get("device_map")) or kwargs.get("quantization_config") is not None
        if is_whole and not in_parts:
            return cls._from_whole_checkpoint(pretrained_model_name_or_path, *model_args, config=config, **kwargs)

        if is_whole:
            weights_files = _weights_files(pretrained_model_name_or_path, location)
            audio_folder = text_folder = Path(weights_files[0]).parent
        else:
            weights_files = [cached_file(pretrained_model_name_or_path, SAFE_WEIGHTS_NAME, **location)]
            audio_folder = _find_recorded_base(config, "audio", audio_base, hub_arguments)
            text_folder = _find_recorded_base(config, "text", text_base, hub_arguments)
            _refuse_other_shape(audio_folder, config.audio_config, config.audio_base)
            _refuse_other_shape(text_folder, config.text_config, config.text_base)
        for name in (*location, *IGNORED_ARGUMENTS):
            kwargs.pop(name, None)
        load_arguments = {
            name: value
            for name, value in kwargs.items()
            if not name.startswith("_") and value is not None and value is not NEUTRAL_VALUES.get(name)
        }
        with_info = load_arguments.pop("output_loading_info", False)
        if unknown := set(load_arguments) - set(inspect.signature(cls._from_bases).parameters):
            raise TypeError(
                f"from_pretrained takes no argument {', '.join(sorted(unknown))} where the bases are loaded one by one: "
                "for an adapter, and for a whole model with quantization_config or a device_map of several places."
            )
        config.standalone = False
        model = cls._from_bases(
            config, audio_folder, text_folder, weights_files=weights_files, from_whole=is_whole, **load_arguments
        )
        model.config.name_or_path = str(pretrained_model_name_or_path)
        try:
            model.generation_config = GenerationConfig.from_pretrained(pretrained_model_name_or_path, **location)
        except OSError:
            pass  # a checkpoint without one keeps the LLM's
        if with_info:  # every key was there, or there were an error
            return model, {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set()}
        return model

    @classmethod
    def _from_whole_checkpoint(cls, pretrained_model_name_or_path, *model_args, config, **kwargs):
        """transformers' own loading, then what it does not know: what learns, and that T5's head may be untied."""
        with_info = kwargs.pop("output_loading_info", False)
        if kwargs.get("attn_implementation") is not None:
            kwargs["attn_implementation"] = attention_of_parts(kwargs["attn_implementation"])
        model, info = super().from_pretrained(
            pretrained_model_name_or_path, *model_args, config=config, output_loading_info=True, **kwargs
        )
        if config.standalone and info["missing_keys"]:  # transformers would fill them at random
            missing = sorted(info["missing_keys"])
            raise ValueError(
                f"{pretrained_model_name_or_path} lacks {len(missing)} of its weights: {', '.join(missing[:5])}."
            )
        model.config.standalone = False
        keep_untied_head(model.language_model)
        model.all_tied_weights_keys = {
            f"language_model.{key}": f"language_model.{target}"
            for key, target in model.language_model.all_tied_weights_keys.items()
        }
        model._freeze()
        return (model, info) if with_info else model

    @classmethod
    def _from_bases(
        cls,
        config,
        audio_folder: Path,
        text_folder: Path,
        *,
        weights_files=None,
        from_whole=False,
        dtype=None,
        torch_dtype=None,
        device_map=None,
        max_memory=None,
        offload_folder=None,
        quantization_config=None,
        attn_implementation=None,
    ):
        """Loads both frozen parts, joins them, and fills the adapter from `weights_files` if there are any.

        The folders are those of the bases, or both that of one whole checkpoint (`from_whole`).
        """
        dtype = dtype or torch_dtype or "auto"
        placement = place_parts(
            cls,
            config,
            dtype=dtype,
            device_map=device_map,
            max_memory=max_memory,
            quantization_config=quantization_config,
        )
        loader = FrozenPartsLoader(
            config,
            from_whole,
            dtype,
            attention_of_parts(attn_implementation),
            quantization_config,
            placement,
            offload_folder,
        )
        audio_tower = loader.audio_tower(audio_folder)
        language_model = loader.language_model(text_folder)
        config.audio_config, config.text_config = audio_tower.config, language_model.config
        for sub_config, base in ((config.audio_config, config.audio_base), (config.text_config, config.text_base)):
            # Where the folder is on this machine is nobody else's business.
            sub_config.name_or_path = "" if base is None else base["id"]
        model = cls(config, audio_tower, language_model)
        if not from_whole:
            model.base_folders = {"audio": audio_folder, "text": text_folder}
        if model.can_generate():
            model.generation_config = language_model.generation_config
        if placement is not None:
            model.multi_modal_projector.to(placement.main_device)
            if placement.is_spread:
                # The first is where `pipeline` takes the inputs to, and nothing computes on the disk.
                model.hf_device_map = {"multi_modal_projector": placement.main_device} | placement.device_map
        if weights_files is not None:
            model._load_adapter_weights(*weights_files, from_whole=from_whole)
        return model.eval()

    def _load_adapter_weights(self, *weights_files, from_whole: bool = False, lora_alone: bool = False):
        """Fills the active adapter from safetensors files, see [`read_adapter_weights`]."""
        parameters = self._adapter_state_dict()
        with torch.no_grad():
            stored = self.read_adapter_weights(*weights_files, from_whole=from_whole, lora_alone=lora_alone)
            for key, tensor in stored.items():
                parameters[key].copy_(tensor)

    def read_adapter_weights(
        self, *weights_files, from_whole: bool = False, lora_alone: bool = False
    ) -> dict[str, torch.Tensor]:
        """The tensors of an adapter's safetensors files, by name; every one has to be there, and no other.

        Args:
            *weights_files (`str` or `os.PathLike`): the files.
            from_whole (`bool`, *optional*, defaults to `False`): whether they hold the frozen parts as well.
            lora_alone (`bool`, *optional*, defaults to `False`): whether they hold no projector, though this model has one.

        Raises:
            ValueError: if a file is damaged, or its keys or shapes are not this adapter's; they are named.
        """
        stored = {}
        for weights_file in weights_files:
            try:
                with safe_open(weights_file, framework="pt") as tensors:
                    wanted = [key for key in tensors.keys() if not from_whole or self._is_adapter_key(key)]
                    stored |= {key: tensors.get_tensor(key) for key in wanted}
            except SafetensorError as error:
                raise ValueError(
                    f"{weights_file} is not a whole safetensors file ({error}): it was cut short or altered. Get it "
                    "again."
                ) from error
        expected = {  # ZeRO-3 leaves empty parameters behind that know their shape
            key: tuple(getattr(tensor, "ds_shape", tensor.shape))
            for key, tensor in self._adapter_state_dict(self.state_dict(keep_vars=True)).items()
            if not (lora_alone and key.startswith("multi_modal_projector."))
        }
        wrong = [f"{key} is missing" for key in expected.keys() - stored.keys()]
        wrong += [f"{key} is not of this adapter" for key in stored.keys() - expected.keys()]
        for key in expected.keys() & stored.keys():
            if stored[key].shape != expected[key]:
                wrong.append(f"{key} is {tuple(stored[key].shape)} and must be {expected[key]}")
            elif not stored[key].isfinite().all():
                wrong.append(f"{key} holds NaN or infinity")
        if wrong:
            more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
            raise ValueError(f"{weights_file} does not fit this model: {'; '.join(sorted(wrong)[:5])}{more}.")
        return stored

    def load_adapter(self, pretrained_model_name_or_path, adapter_name: str, **kwargs):
        """Loads another checkpoint's adapter beside the present ones and makes it the active one.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): an adapter-only checkpoint on the same bases.
            adapter_name (`str`): what to call it here.
            **kwargs: `revision`, `subfolder`, `cache_dir`, `local_files_only`, `token`, ...

        Raises:
            ValueError: if the name is taken, or the adapter is of another shape. A base with another fingerprint warns.
        """
        if not adapter_name or "." in adapter_name:
            raise ValueError(f"{adapter_name!r} cannot name an adapter: a name is not empty and has no dot.")
        if adapter_name in self._lora_configs:
            raise ValueError(f"There is an adapter {adapter_name!r} already; call the new one something else.")
        config = type(self.config).from_pretrained(pretrained_model_name_or_path, **kwargs)
        self._refuse_unfitting_adapter(config, pretrained_model_name_or_path)
        weights_file = cached_file(pretrained_model_name_or_path, SAFE_WEIGHTS_NAME, **kwargs)

        previous = self._active_adapter
        projector = type(self.multi_modal_projector)(self.config, len(self.audio_family.layers_of(self.audio_tower)))
        if config.lora_config is not None:
            inject_adapter_in_model(LoraConfig(**config.lora_config), self.language_model, adapter_name)
            bring_lora_to_its_layers([layer for _, layer in self._lora_layers()], adapter_name)
        self._projectors[adapter_name] = projector.to(self.device)
        self._lora_configs[adapter_name] = config.lora_config
        self.set_adapter(adapter_name)
        try:
            self._load_adapter_weights(weights_file)
        except ValueError:
            self.set_adapter(previous)
            self.delete_adapter(adapter_name)
            raise

    def start_from_adapter(self, pretrained_model_name_or_path, **kwargs):
        """Fills the active adapter with the weights of another checkpoint's, to go on training from there.

        One that learned from text alone gives its LoRA; the projector stays as it is.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): an adapter-only checkpoint on the same bases.
            **kwargs: as in [`~AdapterCheckpointMixin.load_adapter`].

        Raises:
            ValueError: if it is another kind of adapter. A base with another fingerprint warns.
        """
        config = type(self.config).from_pretrained(pretrained_model_name_or_path, **kwargs)
        lora_alone = config.input_modality == "text" and self.config.input_modality == "audio"
        self._refuse_unfitting_adapter(config, pretrained_model_name_or_path, lora_alone)
        ours, theirs = (
            LoraConfig(**c).to_dict() if c else None for c in (self.config.lora_config, config.lora_config)
        )
        if ours != theirs:
            differing = sorted(key for key in (ours or theirs) if not (ours and theirs) or ours[key] != theirs[key])
            raise ValueError(f"{pretrained_model_name_or_path} has another LoRA: {', '.join(differing)} differ.")
        weights_file = cached_file(pretrained_model_name_or_path, SAFE_WEIGHTS_NAME, **kwargs)
        self._load_adapter_weights(weights_file, lora_alone=lora_alone)

    def _refuse_unfitting_adapter(self, config, pretrained_model_name_or_path, lora_alone: bool = False):
        """Refuses another checkpoint's adapter that could not be this model's, and warns of other bases; the two LoRAs are not
        compared. With `lora_alone` nothing is taken that depends on the encoder.

        Raises:
            ValueError: if it could not.
        """
        if config.standalone:
            raise ValueError(f"{pretrained_model_name_or_path} is a whole model, not an adapter: use from_pretrained.")
        if not (config.freeze_audio_tower and self.config.freeze_audio_tower):
            raise ValueError(
                "An adapter that comes with a trained encoder of its own cannot share one: use from_pretrained."
            )
        for field in () if lora_alone else SHARED_FIELDS:
            ours, theirs = getattr(self.config, field), getattr(config, field)
            if ours != theirs:
                raise ValueError(f"{pretrained_model_name_or_path} has {field}={theirs}, this model {ours}.")
        bases = [(self.config.text_base, config.text_base)]
        if not lora_alone:
            bases.insert(0, (self.config.audio_base, config.audio_base))
        for ours, theirs in bases:
            if (ours or {}).get("fingerprint") != theirs["fingerprint"]:
                _warn_of_other_base(theirs, (ours or {}).get("fingerprint"))

    def set_adapter(self, adapter_name: str):
        """Makes one of the loaded adapters the active one: its projector, its LoRA.

        Raises:
            ValueError: if there is none of that name.
        """
        self._refuse_unknown(adapter_name)
        if adapter_name != self._active_adapter:
            self._projectors[self._active_adapter] = self.multi_modal_projector
            self.multi_modal_projector = self._projectors.pop(adapter_name).to(self.device)
            self._active_adapter = adapter_name
            self.config.lora_config = self._lora_configs[adapter_name]
        for _, layer in self._lora_layers():
            layer.set_adapter(adapter_name if adapter_name in layer.lora_A else [])
        self._freeze()
        self.train(self.training)  # peft injects in train mode, and an inactive projector heard of no mode

    def delete_adapter(self, adapter_name: str):
        """Forgets a loaded adapter that is not the active one.

        Raises:
            ValueError: if it is the active one, or there is none of that name.
        """
        self._refuse_unknown(adapter_name)
        if adapter_name == self._active_adapter:
            raise ValueError(f"The adapter {adapter_name!r} is active; set another one before deleting it.")
        del self._lora_configs[adapter_name], self._projectors[adapter_name]
        getattr(self.language_model, "peft_config", {}).pop(adapter_name, None)
        for _, layer in self._lora_layers():
            layer.delete_adapter(adapter_name)

    def active_adapters(self) -> list[str]:
        """The name of the active adapter, in a list as in transformers."""
        return [self._active_adapter]

    def merge_adapter(self):
        """Folds the active LoRA into the LLM's weights, for speed; every LoRA is then gone. Returns the model.

        The LLM is then no longer the base: the model can only be saved whole.

        Raises:
            ValueError: if parts of the model are spread over devices, or the LLM is quantised.
        """
        self._refuse_if_dispatched("merge an adapter")
        self._refuse_if_quantised("merge an adapter")
        for name, layer in self._lora_layers():
            layer.merge()
            parent, _, child = name.rpartition(".")
            setattr(self.language_model.get_submodule(parent), child, layer.get_base_layer())
        self.config.lora_config = None
        self.config.text_base = None
        self._start_with_adapter(DEFAULT_ADAPTER)
        return self

    def _refuse_unknown(self, adapter_name: str):
        if adapter_name not in self._lora_configs:
            raise ValueError(f"There is no adapter {adapter_name!r}; loaded are {', '.join(self._lora_configs)}.")

    def _refuse_if_dispatched(self, action: str):
        """What accelerate has offloaded it brings back unchanged: a change to it would silently be lost."""
        if len(set(getattr(self, "hf_device_map", {}).values())) > 1:
            raise ValueError(f"Cannot {action} while the model is spread over devices: load it onto one device.")

    def _refuse_if_quantised(self, action: str):
        """Quantised weights are not the base's: merging would round LoRA away, and a saved copy would be a new base."""
        if getattr(self.language_model, "is_quantized", False):
            raise ValueError(f"Cannot {action} while the LLM is quantised: load it without quantization_config first.")

    def _lora_layers(self) -> list[tuple[str, LoraLayer]]:
        """The LLM's layers that have a LoRA of any adapter, with their names in the LLM."""
        return [item for item in self.language_model.named_modules() if isinstance(item[1], LoraLayer)]


def _find_recorded_base(config, part: str, given, hub_arguments: dict) -> Path:
    """The folder of a base, see [`SpeechVerseConfig.find_base`]; warns if it is not the one trained on."""
    folder = config.find_base(part, given, **hub_arguments)
    recorded = {"audio": config.audio_base, "text": config.text_base}[part]
    if (found := fingerprint(folder)) != recorded["fingerprint"]:
        _warn_of_other_base(recorded, found)
    return folder


def _warn_of_other_base(recorded: dict, found: str | None):
    logger.warning(
        f"The adapter was trained on {recorded['id']} with fingerprint {recorded['fingerprint']}; this base has "
        f"fingerprint {found}. Its answers may be worse, or nonsense."
    )


def _refuse_other_shape(folder: Path, config: PreTrainedConfig, recorded: dict):
    base = AutoConfig.from_pretrained(folder)
    for field in ("model_type", "hidden_size", "num_hidden_layers", "vocab_size"):
        ours, theirs = getattr(config, field, None), getattr(base, field, None)
        if ours != theirs:
            raise ValueError(
                f"The adapter was trained on {recorded['id']} with {field}={ours}; the base in {folder} has {theirs}."
            )


def _weights_files(name, location: dict) -> list[str]:
    """The safetensors files of a whole checkpoint, be it one or several."""
    if file := cached_file(name, SAFE_WEIGHTS_NAME, _raise_exceptions_for_missing_entries=False, **location):
        return [file]
    index = cached_file(name, SAFE_WEIGHTS_INDEX_NAME, **location)
    return get_checkpoint_shard_files(name, index, **location)[0]
