"""Tensors in files that torch.save wrote elsewhere. Nothing that a file names is ever executed.

A pickle names classes and functions that its reader imports and calls. This reader imports none:
tensors are rebuilt here, and whatever else a trainer left beside them (its arguments, numbers of
NumPy, paths, a scheduler) becomes an inert `Other`.
"""

import io
import pickle
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codistill.errors import InputError
from codistill.files import reading

_TYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}
_LEGACY = 0x1950A86A20F9469CFC6C  # what a file of PyTorch before 1.6 begins with
_ZIP = b"PK\x03\x04"
_FOREIGN = {  # the first bytes of what is often taken for weights, and what to do
    b"version https://git-lfs": "a pointer of Git LFS, not the file: run git lfs pull",
    b"\x89HDF": "an HDF5 file: give weights of PyTorch",
    b"\x1f\x8b": "packed by gzip: unpack it first",
    b"BZh": "packed by bzip2: unpack it first",
    b"\xfd7zXZ": "packed by xz: unpack it first",
}


class Other(dict[Any, Any]):
    """An object that is no tensor: inert, with the state that the file gives it.

    Attributes:
        given: what its class or function would have been called with.
        state: its state, if that is not a dict.
    """

    name = ""
    given: Sequence[Any] = ()
    state: Any = None

    def __new__(cls, *given: Any, **_: Any) -> "Other":
        self = super().__new__(cls)
        self.given = given
        return self

    def __init__(self, *_: Any, **__: Any):
        super().__init__()

    __hash__ = object.__hash__  # type: ignore[assignment]

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.update(state)
        else:
            self.state = state

    def __call__(self, *_: Any) -> "Other":
        return self

    def append(self, _: Any) -> None:
        """Takes an item, as a list or a set does, and drops it."""

    add = append


class _Reader(pickle.Unpickler):
    """Builds plain values, tensors and `Other`s; `storage` gives the numbers of a tensor."""

    def __init__(self, file: Any, storage: Callable[..., Tensor] | None = None):
        super().__init__(file, encoding="latin1")
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        if module == "torch" and isinstance(kind := getattr(torch, name, None), torch.dtype):
            return kind
        if (module, name) == ("collections", "OrderedDict"):
            return _Ordered
        if module == "torch._utils" and name in _BUILDERS:
            return _BUILDERS[name]
        if (module, name) == ("_codecs", "encode"):  # so old pickles hold bytes
            return _bytes
        return type("Other", (Other,), {"name": f"{module}.{name}"})

    def persistent_load(self, found: Any) -> Any:
        if found[0] == "module":  # a class with its source, in files of PyTorch before 1.6
            return found[1]
        if self._storage is None or found[0] != "storage":
            raise pickle.UnpicklingError("it is no file of torch.save")
        return self._storage(*found[1:])


class _Ordered(dict[Any, Any]):
    """A dict whose attributes, such as the versions of modules, are dropped."""

    def __setstate__(self, _: Any) -> None:
        pass


def _bytes(text: str, _: str) -> bytes:
    return text.encode("latin1")


def _tensor(flat: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    return flat.as_strided(tuple(size), tuple(stride), offset)


def _typed(flat: Tensor, offset: int, size: Any, stride: Any, *rest: Any) -> Tensor:
    kind = next(x for x in rest if isinstance(x, torch.dtype))
    return _tensor(flat.view(kind), offset, size, stride)


def _parameter(data: Tensor, *_: Any) -> Tensor:
    return data


_BUILDERS: dict[str, Callable[..., Tensor]] = {
    "_rebuild_tensor": _tensor,
    "_rebuild_tensor_v2": _tensor,
    "_rebuild_tensor_v3": _typed,
    "_rebuild_parameter": _parameter,
    "_rebuild_parameter_with_state": _parameter,
}


def read_pickled(path: Path) -> Any:
    """The content of a file of torch.save: plain values, tensors on the CPU, and `Other`s.

    Arrays of NumPy become tensors. The checksums of a zip file are compared where it has some.

    Raises:
        InputError: the file is absent, damaged, or something else than a file of torch.save.
    """
    with reading(path, "file of weights"):
        content = path.read_bytes()
        found = _read_zip(path, content) if content.startswith(_ZIP) else _read_plain(content)
        return _arrays_as_tensors(found)


def is_safetensors(path: Path) -> bool:
    """Whether a file that may hold weights is of the form safetensors, whatever its name.

    Raises:
        InputError: the file is absent, or what is often taken for weights and is not.
    """
    with reading(path, "file of weights"), open(path, "rb") as file:
        head = file.read(512)
    for begins, what in _FOREIGN.items():
        if head.startswith(begins):
            raise InputError(f"{path} is {what}")
    if not head:
        raise InputError(f"{path} is empty")
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        raise InputError(f"{path} is a page of HTML or XML, not weights: download it again")
    if head[257:262] == b"ustar":
        raise InputError(f"{path} is a tar file: unpack it, and give a file in it")
    return path.suffix == ".safetensors" or head[8:9] == b"{"


def _read_zip(path: Path, content: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for member in archive.infolist():
            if not member.CRC:  # torch.save can leave it out
                del member.CRC  # zipfile then compares none
        names = archive.namelist()
        (listing,) = [n for n in names if n.endswith("data.pkl") and n.count("/") <= 1] or [""]
        if not listing or f"{listing[:-8]}constants.pkl" in names:
            what = "a TorchScript program" if listing else "a zip file, but not one of torch.save"
            raise InputError(f"{path} is {what}: give what torch.save(model.state_dict()) writes")
        folder = listing.removesuffix("data.pkl")
        if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
            raise InputError(f"{path} was written by a big-endian machine: write it anew")
        known: dict[str, Tensor] = {}

        def storage(kind: torch.dtype, key: str, _: str, n: int, *__: Any) -> Tensor:
            if key not in known:
                flat = _flat(kind, n)
                flat.view(torch.uint8).numpy()[:] = np.frombuffer(
                    archive.read(f"{folder}data/{key}"), np.uint8
                )
                known[key] = flat
            return known[key]

        return _Reader(io.BytesIO(archive.read(listing)), storage).load()


def _read_plain(content: bytes) -> Any:
    """A file of PyTorch before 1.6, or a plain pickle."""
    file = io.BytesIO(content)
    found = _Reader(file).load()
    if found != _LEGACY:
        return found
    _Reader(file).load(), _Reader(file).load()  # a number of the format, facts of the machine
    known: dict[str, Tensor] = {}

    def storage(kind: torch.dtype, key: str, _: str, n: int, view: Any = None) -> Tensor:
        flat = known.setdefault(key, _flat(kind, n))
        return flat if view is None else flat[view[1] : view[1] + view[2]]

    found = _Reader(file, storage).load()
    for key in _Reader(file).load():
        flat = known[key]
        (n,) = struct.unpack("<q", file.read(8))
        numbers = file.read(n * flat.element_size())
        flat.view(torch.uint8).numpy()[:] = np.frombuffer(numbers, np.uint8)
    return found


def _flat(kind: torch.dtype, n: int) -> Tensor:
    return torch.empty(n, dtype=kind)


def _arrays_as_tensors(value: Any, depth: int = 0) -> Any:
    """The value, with tensors in place of NumPy's arrays in its dicts."""
    if isinstance(value, Other):
        return _array_as_tensor(value)
    if type(value) in (dict, _Ordered) and depth < 8:
        return {key: _arrays_as_tensors(x, depth + 1) for key, x in value.items()}
    return value


def _array_as_tensor(value: Other) -> Any:
    if not value.name.endswith("multiarray._reconstruct") or not isinstance(value.state, tuple):
        return value
    _, shape, kind, by_columns, numbers = value.state
    code = str(kind.given[0])
    if not isinstance(numbers, bytes) or code[:1] not in "fiub":
        return value
    numbered = np.dtype(code)
    array = np.frombuffer(numbers, numbered.newbyteorder(kind.state[1])).astype(numbered)
    return torch.from_numpy(array.reshape(shape, order="F" if by_columns else "C").copy())
