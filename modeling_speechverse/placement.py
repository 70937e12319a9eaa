"""Where the frozen parts go: over several devices, or off them, to the CPU's memory or the disk.

Each part is loaded straight to where its tensors belong; a tensor that belongs on the disk is left in its checkpoint.
What learns is never offloaded: it is small, it could not be trained from afar, and it has to be saved.
"""

import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from accelerate import dispatch_model, infer_auto_device_map
from accelerate.hooks import remove_hook_from_module
from accelerate.utils import CustomDtype, get_balanced_memory
from torch import nn
from transformers.quantizers import AutoHfQuantizer


STRATEGIES = ("auto", "balanced", "balanced_low_0", "sequential")  # of transformers
OFF_THE_DEVICES = ("cpu", "disk")


@dataclass
class Placement:
    """A device for every tensor of a model.

    Args:
        device_map (`dict[str, str | int]`): device of every module. No module lies within another.
        main_device (`str` or `int`): where computing starts: the first accelerator, else the CPU.
    """

    device_map: dict[str, str | int]
    main_device: str | int

    @property
    def is_spread(self) -> bool:
        """Whether accelerate has to bring tensors together; else the whole model is on the main device."""
        return set(self.device_map.values()) != {self.main_device}

    def part(self, name: str) -> dict[str, str | int]:
        """The device map of one part of the model, in that part's own names."""
        if "" in self.device_map:
            return dict(self.device_map)
        inside = {key: device for key, device in self.device_map.items() if key == name or key.startswith(f"{name}.")}
        return {key[len(name) + 1 :]: device for key, device in inside.items()}

    def offloads(self, name: str) -> bool:
        """Whether tensors of a part are kept where no computing is."""
        return any(device in OFF_THE_DEVICES and device != self.main_device for device in self.part(name).values())


def asks_for_several_places(device_map) -> bool:
    """Whether a `device_map` is more than the name of one device."""
    if isinstance(device_map, dict):
        return set(device_map) != {""} or device_map[""] == "disk"
    return device_map in STRATEGIES


def place(
    make_skeleton: Callable[[], nn.Module],
    device_map,
    max_memory: dict | None = None,
    stay: tuple[str, ...] = (),
    quantization_config=None,
) -> Placement | None:
    """Decides where each module goes, before any weight is read.

    Args:
        make_skeleton (`Callable`): makes the model on the meta device; called where the map has to be worked out.
        device_map (`str`, `int`, `torch.device` or `dict`, *optional*): as in `PreTrainedModel.from_pretrained`.
        max_memory (`dict`, *optional*): device to bytes, for a strategy such as `"auto"`.
        stay (`tuple[str, ...]`): modules that stay on the main device whatever the map says.
        quantization_config (*optional*): of the LLM, whose linear layers then take less room.

    Returns:
        The placement; `None` without a map.

    Raises:
        ValueError: if the map names no device for parts of the model.
    """
    if device_map is None:
        return None
    if not asks_for_several_places(device_map):
        device = _plain(device_map[""] if isinstance(device_map, dict) else device_map)
        return Placement({"": device}, device)
    skeleton = make_skeleton()
    if isinstance(device_map, str):
        device_map = _infer(skeleton, device_map, max_memory, quantization_config)
    device_map = {name: _plain(device) for name, device in device_map.items()}
    main_device = next((device for device in device_map.values() if device not in OFF_THE_DEVICES), "cpu")
    device_map |= dict.fromkeys(stay, main_device)
    placement = Placement({}, main_device)
    _collect(skeleton, "", _device_finder(skeleton, device_map), placement, skeleton._no_split_modules)
    return placement


def settle(
    part: nn.Module, device_map: dict, main_device, offload_index: dict, whole_modules: list[str] | None = None
):
    """Lets accelerate bring a loaded part's tensors together whenever they are needed.

    Args:
        part (`nn.Module`): a part without hooks.
        device_map (`dict`): the part's own device map.
        main_device (`str` or `int`): where what is offloaded computes.
        offload_index (`dict`): where on the disk the tensors are that were left there, see [`take_off_hooks`].
        whole_modules (`list[str]`, *optional*): classes whose instances have to be brought in whole.
    """
    with tensors_named_alone():
        dispatch_model(
            part,
            device_map,
            main_device=main_device,
            offload_index=offload_index,
            preload_module_classes=whole_modules,
            force_hooks=True,  # a part that is on one device still has to get its inputs there
        )


@contextmanager
def tensors_named_alone():
    """accelerate warns of a device map that names tensors, as ours does where a module holds more than layers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The following device_map keys do not match any submodules")
        yield


def take_off_hooks(part: nn.Module) -> dict[str, dict]:
    """Undoes what transformers dispatched; returns where on the disk each tensor is that was left there.

    transformers does not know the other part's devices, nor that WavLM's layers have to be brought in whole.
    """
    hooks = [module._hf_hook for module in part.modules() if hasattr(module, "_hf_hook")]
    loaders = [hook.weights_map.dataset for hook in hooks if getattr(hook, "weights_map", None) is not None]
    remove_hook_from_module(part, recurse=True)
    return loaders[0].index if loaders else {}


def bring_lora_to_its_layers(layers: list, adapter_name: str):
    """Gives LoRA real weights where its layer's are offloaded, on the device where they compute.

    peft makes LoRA where the layer's weights are, and these are on the meta device until they are needed.
    """
    for layer in layers:
        hook = getattr(layer.get_base_layer(), "_hf_hook", None)
        if hook is None or adapter_name not in layer.lora_A or not layer.lora_A[adapter_name].weight.is_meta:
            continue
        for adapters in (layer.lora_A, layer.lora_B):
            adapters[adapter_name].to_empty(device=hook.execution_device)
        layer.reset_lora_parameters(adapter_name, True)


def _plain(device):
    return str(device) if isinstance(device, torch.device) else device


def _infer(skeleton, strategy: str, max_memory: dict | None, quantization_config) -> dict:
    arguments = {
        "no_split_module_classes": list(skeleton._no_split_modules),
        "special_dtypes": _quantised_dtypes(skeleton.language_model, quantization_config),
    }
    if strategy != "sequential":
        max_memory = get_balanced_memory(skeleton, max_memory, low_zero=strategy == "balanced_low_0", **arguments)
    return infer_auto_device_map(skeleton, max_memory=max_memory, **arguments)


def _quantised_dtypes(language_model, quantization_config) -> dict:
    """The dtypes that the LLM's linear layers will have; the head's is left as it is by every quantiser."""
    if quantization_config is None:
        return {}
    size = AutoHfQuantizer.from_config(quantization_config, pre_quantized=False).quantized_element_size
    if size is None:
        return {}
    dtype = torch.int8 if size == 1 else CustomDtype.INT4
    head = language_model.get_output_embeddings()
    return {
        f"language_model.{name}.weight": dtype
        for name, module in language_model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }


def _device_finder(skeleton, device_map: dict) -> Callable[[str], str | int]:
    tied = {
        f"language_model.{k}": f"language_model.{v}" for k, v in skeleton.language_model.all_tied_weights_keys.items()
    }

    def device_of(tensor_name: str) -> str | int:
        name = tied.get(tensor_name, tensor_name)  # what shares its weights shares their place
        while name not in device_map:
            if not name:
                raise ValueError(f"device_map has no device for {tensor_name}: name its module, or '' for the rest.")
            name = name.rpartition(".")[0]
        return device_map[name]

    return device_of


def _collect(module: nn.Module, name: str, device_of: Callable, placement: Placement, unsplit: set[str]):
    """Names in `placement` the fewest modules that say where every tensor of `module` goes."""
    prefix = f"{name}." if name else ""
    tensors = [key for key, _ in module.named_parameters(remove_duplicate=False)]
    tensors += [key for key, _ in module.named_buffers(remove_duplicate=False)]
    devices = [device_of(prefix + key) for key in tensors]
    stays_whole = len(set(devices)) == 1 or type(module).__name__ in unsplit
    if name and devices and stays_whole:  # the model itself is always told apart into its parts
        placement.device_map[name] = devices[0]
        return
    for key in tensors:
        if "." not in key:  # accelerate brings in what a layer holds, not what a module with layers of its own holds
            placement.device_map[prefix + key] = placement.main_device
    for child_name, child in module.named_children():
        _collect(child, prefix + child_name, device_of, placement, unsplit)
