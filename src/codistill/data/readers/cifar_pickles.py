"""Reads CIFAR's pickles without running any code that they name."""

import io
import pickle
from typing import Any

import numpy as np
from jaxtyping import UInt8

from codistill.errors import InputError


class _Recorded:
    """A record of what a pickle asked to build; nothing is built."""

    def __init__(self, *args: object):
        self.args = args
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


# NumPy does not see the contents: its arrays restore themselves from any state, even as arrays of
# objects, and warn of what Python 2 wrote. A pickle cannot change these values for the next one,
# because `__setstate__` stands in the way of setting an attribute.
_KNOWN: dict[tuple[str, str], object] = {
    ("numpy.core.multiarray", "_reconstruct"): _Recorded,
    ("numpy._core.multiarray", "_reconstruct"): _Recorded,
    ("numpy", "dtype"): _Recorded,
    ("numpy", "ndarray"): "ndarray",
    ("_codecs", "encode"): str.encode,  # how Python 3 writes bytes for Python 2
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, where: str):
        super().__init__(io.BytesIO(data), encoding="bytes")
        self.where = where

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise InputError(
                f"{self.where} asks to run {module}.{name}, which no CIFAR file needs: nothing was "
                "run; fetch the file again from https://www.cs.toronto.edu/~kriz/cifar.html"
            )
        return _KNOWN[module, name]


def read_pickle(data: bytes, where: str) -> dict[bytes, object]:
    """The dict in a pickle. `pixel_rows` reads its arrays.

    Args:
        data: bytes of the pickle.
        where: name of the file, for messages.
    """
    try:
        content = _Unpickler(data, where).load()
    except InputError:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise InputError(f"{where} is damaged or cut off ({error}): fetch it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{where} holds a {type(content).__name__}, not a dict: it is not CIFAR's")
    return content


def pixel_rows(value: object, where: str) -> UInt8[np.ndarray, "n 3072"]:
    """The array of bytes that a pickle describes. Raises InputError if it is none."""
    match getattr(value, "state", None):
        case (_, (int(n), 3072), _Recorded(args=((b"u1" | "u1"), *_)), fortran, bytes(raw)):
            if len(raw) == n * 3072:
                flat = np.frombuffer(raw, np.uint8)
                return flat.reshape(3072, n).T if fortran else flat.reshape(n, 3072)
    raise InputError(f"{where} has no images as an array of bytes, n x 3072, under 'data'")
