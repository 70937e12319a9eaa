"""The common tests of the installed transformers, from its source distribution: fetched once, kept out of git.

transformers tests every model of its own with `ModelTesterMixin` and every processor with `ProcessorTesterMixin`. Its
wheel leaves them out, its source distribution holds them. Here they become importable as `transformers_tests`; what they
import that the distribution lacks (tests of `generate` and of exporters) is stubbed.
"""

import importlib
import math
import os
import subprocess
import sys
import tarfile
import tempfile
import warnings
import wave
from functools import cache
from pathlib import Path
from types import ModuleType

import transformers
from filelock import FileLock


CACHE = Path(__file__).parents[2] / ".cache" / "transformers-tests"
PACKAGE = "transformers_tests"


class NotFetched(Exception):
    """The source distribution is not there, and could not be fetched."""


@cache
def upstream_module(name: str) -> ModuleType:
    """A module of transformers' `tests` folder.

    Raises:
        NotFetched: with the reason in one sentence.
    """
    _install_stubs(fetched_tests())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pytest's, about marks that are declared in transformers alone
        return importlib.import_module(f"{PACKAGE}.{name}")


@cache
def fetched_tests() -> Path:
    """The `tests` folder of the installed transformers; pip fetches it once, also where several workers want it."""
    version = transformers.__version__
    folder = CACHE / version
    if folder.is_dir():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    # The workers of one run of pytest-xdist have to collect the same tests: none tries again where another has failed.
    failure = CACHE / f"failed-{os.environ.get('PYTEST_XDIST_TESTRUNUID')}"
    with FileLock(CACHE / "lock"):
        if failure.exists():
            raise NotFetched(failure.read_text(encoding="utf-8"))
        if not folder.is_dir():
            try:
                _fetch(version, folder)
            except NotFetched as error:
                if "PYTEST_XDIST_TESTRUNUID" in os.environ:
                    failure.write_text(str(error), encoding="utf-8")
                raise
    return folder


def _fetch(version: str, folder: Path):
    with tempfile.TemporaryDirectory(dir=CACHE) as download:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "transformers"]
        done = subprocess.run(
            [*pip, "--dest", download, f"transformers=={version}"], capture_output=True, text=True, timeout=300
        )
        archives = list(Path(download).glob("*.tar.gz"))
        if done.returncode or not archives:
            reason = (done.stderr.strip() or "pip gave no reason").splitlines()[-1].removeprefix("ERROR: ").rstrip(".")
            raise NotFetched(f"transformers {version}'s source distribution could not be fetched: {reason}.")
        with tarfile.open(archives[0]) as archive:
            archive.extractall(download, filter="data")
        tests = archives[0].with_name(archives[0].name.removesuffix(".tar.gz")) / "tests"
        if not tests.is_dir():
            raise NotFetched(f"transformers {version}'s source distribution holds no tests.")
        tests.rename(folder)


def _install_stubs(tests: Path):
    """The package around the fetched modules, and empty stand-ins for what they import and do not find."""
    package = ModuleType(PACKAGE)
    package.__path__ = [str(tests)]
    sys.modules.setdefault(PACKAGE, package)
    for name, mixin in (
        ("exporters.test_export", "ExportTesterMixin"),
        ("generation.test_utils", "GenerationTesterMixin"),
    ):
        folder, module = name.split(".")
        for stub in (f"{PACKAGE}.{folder}", f"{PACKAGE}.{folder}.{module}"):
            sys.modules.setdefault(stub, ModuleType(stub))
        setattr(sys.modules[f"{PACKAGE}.{name}"], mixin, type(mixin, (), {}))
    hub_objects = ModuleType("fetch_hub_objects_for_ci")  # of transformers' `utils` folder
    hub_objects.url_to_local_path = _local_recording
    sys.modules.setdefault(hub_objects.__name__, hub_objects)


def _local_recording(url: str) -> str:
    """In place of a recording on the Hub: a second of a tone. Nothing else is needed here."""
    if not url.endswith((".wav", ".mp3")):
        return url
    file = CACHE / "tone.wav"
    with FileLock(CACHE / "lock"):
        if not file.exists():
            with wave.open(str(file), "wb") as tone:
                tone.setparams((1, 2, 16_000, 0, "NONE", None))
                samples = (int(3000 * math.sin(2 * math.pi * 440 * i / 16_000)) for i in range(16_000))
                tone.writeframes(b"".join(sample.to_bytes(2, "little", signed=True) for sample in samples))
    return str(file)
