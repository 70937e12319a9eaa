"""Reader of CTranslate2's `model.bin`."""

import struct

import numpy as np

from speechverse.training.foundation_builders.errors import FoundationError


BINARY_VERSION = 6
DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


def read_ctranslate2(blob: bytes, spec: str) -> dict[str, np.ndarray]:
    """The arrays of a CTranslate2 model that is not quantised.

    The format, little-endian: binary version (uint32), spec name, spec revision (uint32), number of arrays (uint32);
    then for each array its name, rank (uint8), dimensions (uint32 each), dtype (uint8), size in bytes (uint32), data.

    Args:
        blob (`bytes`): Content of `model.bin`.
        spec (`str`): The model family it must hold, e.g. `"WhisperSpec"`.

    Returns:
        `dict[str, np.ndarray]`: Every array by name; flags and head counts are arrays of rank 0.

    Raises:
        FoundationError: If the blob holds another version or family, or quantised weights.
    """
    cursor = _Cursor(blob)
    found = cursor.number("I"), cursor.text()
    if found != (BINARY_VERSION, spec):
        raise FoundationError(
            f"This is CTranslate2 binary version {found[0]} of {found[1]!r}, but only version {BINARY_VERSION} of "
            f"{spec!r} can be read."
        )
    cursor.number("I")  # revision of the spec: the arrays have names, so it changes nothing here
    arrays = dict(cursor.named_array() for _ in range(cursor.number("I")))
    if any(name.endswith("weight_scale") for name in arrays):
        raise FoundationError("This CTranslate2 model is quantised; only float weights can be read.")
    return arrays


class _Cursor:
    """Reads a blob from front to back."""

    def __init__(self, blob: bytes):
        self.blob = blob
        self.at = 0

    def number(self, code: str) -> int:
        """One little-endian integer; `code` is that of `struct`."""
        (value,) = struct.unpack_from("<" + code, self.blob, self.at)
        self.at += struct.calcsize(code)
        return value

    def text(self) -> str:
        """A string: its length with the final NUL (uint16), then the bytes."""
        length = self.number("H")
        self.at += length
        return self.blob[self.at - length : self.at - 1].decode()

    def named_array(self) -> tuple[str, np.ndarray]:
        name = self.text()
        shape = [self.number("I") for _ in range(self.number("B"))]
        dtype = np.dtype(DTYPES[self.number("B")]).newbyteorder("<")
        size = self.number("I")
        array = np.frombuffer(self.blob, dtype, size // dtype.itemsize, self.at).reshape(shape)
        self.at += size
        return name, array
