"""What a person is told when a foundation cannot be provided."""

import importlib


class FoundationError(Exception):
    """A foundation cannot be provided; the message says why, in words meant for the person at the keyboard."""


def require_extra(module: str) -> None:
    """Check that an optional dependency of the builders can be imported.

    Args:
        module (`str`): Name of the module, e.g. `"onnx"`.

    Raises:
        FoundationError: If the module is not installed.
    """
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise FoundationError(
            f"Building this foundation needs {module}, which is not installed: pip install -e '.[demo]'"
        ) from error
