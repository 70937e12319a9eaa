"""Where the frozen bases come from, and how a base is recognised.

A SpeechVerse checkpoint holds only what it learned. The bases are looked for, in this order: where the caller says
(`audio_base=`, `text_base=`), in `$SPEECHVERSE_FOUNDATIONS` by its name, or by what a folder's SOURCE.json says that it is, on the
Hugging Face Hub.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import safe_open


FOUNDATIONS_VARIABLE = "SPEECHVERSE_FOUNDATIONS"
HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token")
FINGERPRINT_BYTES = 4096  # of each tensor: enough to tell two checkpoints apart, and read in milliseconds


def resolve_base(base: str | os.PathLike, *, revision: str | None = None, **hub_arguments) -> Path:
    """Finds the folder of a base that a caller names: a folder, or what [`find_named_base`] takes."""
    folder = Path(base)
    return folder if folder.is_dir() else find_named_base(str(base), revision=revision, **hub_arguments)


def find_named_base(base: str, *, revision: str | None = None, **hub_arguments) -> Path:
    """Finds the folder of a base in `$SPEECHVERSE_FOUNDATIONS` or on the Hub, downloading it if need be.

    Args:
        base (`str`): a Hub id, or the name of a folder in `$SPEECHVERSE_FOUNDATIONS`. A folder of another name will do whose
            SOURCE.json says that it is the base.
        revision (`str`, *optional*): branch, tag or commit, where the Hub is asked.
        **hub_arguments: `cache_dir`, `force_download`, `local_files_only`, `token`.

    Raises:
        FileNotFoundError: if the base is nowhere, saying where it was looked for and how to get it.
    """
    foundations = os.environ.get(FOUNDATIONS_VARIABLE)
    if foundations and (folder := _find_in(Path(foundations), base)):
        return folder
    try:
        return Path(_download(base, revision, hub_arguments))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        variable = f"${FOUNDATIONS_VARIABLE}"
        source = "" if "/" in base else "--source packages "  # what has no name on the Hub is not the original
        looked = f"in {variable} ({foundations})" if foundations else f"given by {variable} (which is not set)"
        raise FileNotFoundError(
            f"The base model {base!r} is not a folder, not {looked}, and {_why_not_from_hub(error, base, revision)}. Pass "
            "audio_base= or text_base= with its folder, or build it with "
            f"`speechverse-foundations {source}--out DIR {Path(base).name}` and set {FOUNDATIONS_VARIABLE}=DIR."
        ) from error


def _find_in(foundations: Path, base: str) -> Path | None:
    """The folder of the base's name, or else one that says that it is the base: an encoder alone has a name of its own."""
    if (folder := foundations / Path(base).name).is_dir():
        return folder
    built = sorted(source.parent for source in foundations.glob("[!.]*/SOURCE.json"))  # with a dot they are half-made
    return next((folder for folder in built if _recorded_source(folder).get("id") == base), None)


def _recorded_source(folder: Path) -> dict:
    """What a built folder says of itself; nothing where it says nothing that can be read."""
    try:
        recorded = json.loads((folder / "SOURCE.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return recorded if isinstance(recorded, dict) else {}


def _why_not_from_hub(error: Exception, repo_id: str, revision: str | None) -> str:
    if isinstance(error, GatedRepoError):
        return f"on the Hub it is gated: accept its terms on the page of {repo_id} and log in with `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return "the Hub has no such repository, or it is private and you are not logged in (`hf auth login`)"
    if isinstance(error, RevisionNotFoundError):
        return f"the Hub's repository has no revision {revision!r}"
    if isinstance(error, LocalEntryNotFoundError):
        return "the Hub cannot be reached and its cache does not have it"
    return f"the Hub did not give it ({type(error).__name__})"


def _download(repo_id: str, revision: str | None, hub_arguments: dict) -> str:
    """The configuration, tokenizer and one set of weights, however many the repository has."""
    patterns = ["*.json", "*.txt", "*.model", "*.jinja"]
    for weights in (["model.safetensors", "model-*.safetensors"], ["pytorch_model*.bin"]):
        folder = snapshot_download(repo_id, revision=revision, allow_patterns=patterns + weights, **hub_arguments)
        if any(match for pattern in weights for match in Path(folder).glob(pattern)):
            break
    return folder


def describe_base(base: str | os.PathLike, folder: Path, revision: str | None = None) -> dict[str, str | None]:
    """The record of a base that a configuration keeps: `id`, `revision`, `fingerprint`.

    A local folder is recorded by the id that its SOURCE.json gives, a snapshot in the Hub's cache by its repository and
    commit, any other folder by its name: never by its path.
    """
    if recorded := _recorded_source(folder):
        base, revision = recorded.get("id", folder.name), recorded.get("revision")
    elif folder.parent.name == "snapshots":  # models--ORG--NAME/snapshots/COMMIT
        base = folder.parent.parent.name.removeprefix("models--").replace("--", "/")
        revision = folder.name
    elif Path(base).is_dir():
        base, revision = folder.resolve().name, None  # a folder has no revision, whatever was asked for
    return {"id": str(base), "revision": revision, "fingerprint": fingerprint(folder)}


def fingerprint(folder: str | os.PathLike) -> str:
    """SHA-256 over the sorted (name, shape, stored dtype, first 4 KiB) of every tensor of a checkpoint folder.

    Raises:
        FileNotFoundError: if the folder holds no weights.
    """
    return fingerprint_of_tensors(_tensors(Path(folder)))


def fingerprint_of_tensors(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """Like [`fingerprint`], of named tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        count = -(-FINGERPRINT_BYTES // tensor.element_size())
        head = tensor.flatten()[:count].contiguous().view(torch.uint8)[:FINGERPRINT_BYTES]
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(head.cpu().numpy().tobytes())
    return digest.hexdigest()


def _tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Every stored tensor, memory-mapped: only what is looked at is read."""
    if files := _weight_files(folder, "model.safetensors"):
        for file in files:
            with safe_open(file, framework="pt") as tensors:
                yield from ((name, tensors.get_tensor(name)) for name in tensors.keys())
    elif files := _weight_files(folder, "pytorch_model.bin"):
        for file in files:
            mappable = zipfile.is_zipfile(file)  # files older than torch 1.6 are not
            yield from torch.load(file, map_location="cpu", mmap=mappable, weights_only=True).items()
    else:
        raise FileNotFoundError(f"{folder} holds no weights: neither model.safetensors nor pytorch_model.bin.")


def _weight_files(folder: Path, name: str) -> list[Path]:
    """The file of that name, or the shards that its index lists."""
    if (index := folder / f"{name}.index.json").is_file():
        shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return [folder / shard for shard in sorted(set(shards))]
    return [folder / name] if (folder / name).is_file() else []
