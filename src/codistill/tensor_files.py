"""Files of tensors: states of trainings by torch.save, and weights as safetensors."""

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from codistill import seals
from codistill.errors import InputError
from codistill.files import parse_json, reading, write_bytes


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Writes a state in the form of `torch.save`, as `write_bytes` does."""
    buffer = io.BytesIO()  # torch.save would report a full disk as an error of its own zip writer
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())


def read_state(path: Path) -> Any:
    """Reads what `write_state` wrote, and executes nothing in it. Compares the checksums in it."""
    with reading(path, "file of torch.save that holds tensors alone"):
        if zipfile.is_zipfile(path):  # others are of PyTorch before 1.6
            require_checksums(path)
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:  # whose text advises to read it in an unsafe way
            raise ValueError("it holds other objects, or is cut short") from None


def require_checksums(path: Path) -> None:
    """Raises zipfile.BadZipFile if a member of a zip file has another CRC-32 than the file says.

    Neither PyTorch nor NumPy compares them in every case. A member without one is not read.
    """
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.CRC:
                with archive.open(member) as content:
                    while content.read(1 << 20):
                        pass


def load_into(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Puts the tensors read from `path` into a module.

    Raises:
        InputError: a tensor is absent, left over, of another shape, or whole numbers in place of
            real ones.
    """
    kinds = {name: x.is_floating_point() for name, x in module.state_dict().items()}
    try:
        if any(kinds.get(name) is not x.is_floating_point() for name, x in tensors.items()):
            raise TypeError
        module.load_state_dict(tensors)
    except Exception as error:  # a file may hold anything
        kind = type(module).__name__
        raise InputError(f"{path} does not hold the weights of this {kind}") from error


def write_weights(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Writes safetensors with a seal, as `write_bytes` does.

    A tensor that two names share is written twice: the format knows no sharing.

    Args:
        path: the file.
        tensors: tensors by name.
        about: facts for JSON, which the metadata has under "codistill".
    """
    alone: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        x = tensor.detach().cpu().contiguous()
        place = x.untyped_storage().data_ptr()
        alone[name] = x.clone() if place in seen else x
        seen.add(place)
    write_bytes(path, save(alone, sealed_metadata(about)))


def sealed_metadata(about: dict[str, Any]) -> dict[str, str]:
    """The metadata of a safetensors file, with a seal that `seals.seal` will close."""
    facts = {seals.NAME: seals.OPEN} | dict(sorted(about.items()))
    return {"codistill": json.dumps(facts)}


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a safetensors file, and the `about` that `write_weights` put there.

    Raises:
        InputError: the file is absent or damaged.
    """
    with reading(path, "safetensors file"):
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        about = parse_json(metadata.get("codistill", "{}"), path)
        if not isinstance(about, dict):
            raise ValueError("its metadata are no names and values")
        if not seals.unbroken(path):
            raise ValueError(f"its content is not that of the {seals.NAME!r} in it")
        about.pop(seals.NAME, None)
        return load_file(path), about
