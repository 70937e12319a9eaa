"""The original of a foundation, taken from the Hugging Face Hub."""

import shutil
from fnmatch import fnmatch
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HTTPError

from speechverse.training.foundation_builders.errors import FoundationError


ANSWER_WITHIN = 5.0  # seconds

CONFIG_AND_TOKENIZER = ("*.json", "*.txt", "*.model", "*.jinja")
SAFETENSORS = ("model*.safetensors",)
PICKLES = ("pytorch_model*.bin",)

# Trouble with the network is an HTTPError of whichever HTTP library the Hub's client uses, or an OSError; with
# HF_HUB_OFFLINE set it is the latter.
HUB_ERRORS = (HTTPError, OSError)


class HubUnavailable(FoundationError):
    """The Hugging Face Hub does not answer for a model: no network, HF_HUB_OFFLINE, or no such model there."""


def ask_hub(hub_id: str) -> huggingface_hub.ModelInfo:
    """What the Hub says about a model: its commit, files and card.

    Raises:
        HubUnavailable: If the Hub gives no answer within `ANSWER_WITHIN` seconds.
    """
    try:
        return huggingface_hub.HfApi().model_info(hub_id, timeout=ANSWER_WITHIN)
    except HUB_ERRORS as error:
        raise HubUnavailable(f"The Hugging Face Hub does not answer for {hub_id} ({_first_line(error)}).") from error


def download_original(info: huggingface_hub.ModelInfo, folder: Path) -> None:
    """Save config, tokenizer, feature extractor and PyTorch weights of one commit in `folder`.

    Raises:
        FoundationError: If the repository has no PyTorch weights, or the download fails.
    """
    files = wanted_files([sibling.rfilename for sibling in info.siblings or []])
    if not _matching(files, SAFETENSORS + PICKLES):
        raise FoundationError(f"{info.id} has no PyTorch weights on the Hugging Face Hub; try --source packages.")
    try:
        huggingface_hub.snapshot_download(info.id, revision=info.sha, local_dir=folder, allow_patterns=files)
    except HUB_ERRORS as error:
        raise FoundationError(
            f"The download of {info.id} from the Hugging Face Hub failed ({_first_line(error)}); run again, or build "
            "it with --source packages."
        ) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # bookkeeping of snapshot_download


def wanted_files(files: list[str]) -> list[str]:
    """The files of a Hub repository that `from_pretrained` reads: those at its top, with one set of weights.

    Example: `["config.json", "model.safetensors", "pytorch_model.bin", "onnx/model.onnx"]` gives
    `["config.json", "model.safetensors"]`.
    """
    top = [file for file in files if "/" not in file]
    weights = _matching(top, SAFETENSORS) or _matching(top, PICKLES)
    return _matching(top, CONFIG_AND_TOKENIZER) + weights


def _matching(files: list[str], patterns: tuple[str, ...]) -> list[str]:
    return [file for file in files if any(fnmatch(file, pattern) for pattern in patterns)]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
