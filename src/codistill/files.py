"""Files that are written whole or not at all, and the cache's folder."""

import contextlib
import hashlib
import io
import json
import os
import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from codistill.errors import InputError, reason


@contextlib.contextmanager
def written(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`, and renames the file to `path` when the block ends.

    So `path` is always a whole file: the new one, or the old one if the block raises or the power
    fails. The file is flushed to the disk before the rename, and its folder after it.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, name):
            error.filename = str(path)
        raise
    if os.name == "posix":  # other systems cannot open a folder, and need not
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a whole file, or leaves the old one: see `written`."""
    with written(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Writes text in UTF-8, as `write_bytes` does."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Writes indented JSON, as `write_bytes` does."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Writes a state in the form of `torch.save`, as `write_bytes` does."""
    buffer = io.BytesIO()  # torch.save would report a full disk as an error of its own zip writer
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())


def read_state(path: Path) -> dict[str, Any]:
    """Reads what `write_state` wrote, and executes nothing in it."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, LookupError, ValueError, OSError, EOFError) as e:
        raise InputError(f"{path} is damaged or no checkpoint ({reason(e)})") from e


def read_json(path: Path) -> Any:
    """Reads what `write_json` wrote."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged or absent ({reason(error)})") from error


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load_into(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Puts the tensors read from `path` into a module."""
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        kind = type(module).__name__
        raise InputError(f"{path} does not hold the weights of this {kind}") from error


def write_weights(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Writes safetensors, as `write_bytes` does, with `about` in the metadata under "codistill".

    A tensor that two names share is written twice: the format knows no sharing.
    """
    alone: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        x = tensor.detach().cpu().contiguous()
        place = x.untyped_storage().data_ptr()
        alone[name] = x.clone() if place in seen else x
        seen.add(place)
    write_bytes(path, save(alone, {"codistill": json.dumps(about, sort_keys=True)}))


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a safetensors file, and the `about` that `write_weights` put there."""
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("codistill", "{}"))
        return load_file(path), about
    except (SafetensorError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is damaged or no safetensors file: {error}") from error
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error


def cache_folder() -> Path:
    """$CODISTILL_CACHE, or codistill under $XDG_CACHE_HOME, or ~/.cache/codistill."""
    if own := os.environ.get("CODISTILL_CACHE"):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "codistill"
    try:
        return Path.home() / ".cache" / "codistill"
    except RuntimeError as error:
        raise InputError("no home folder is known: set CODISTILL_CACHE to a folder") from error


@contextlib.contextmanager
def writing_alone(stem: Path) -> Iterator[None]:
    """Lets one process at a time write the files of this stem; removes what a killed one left.

    Raises:
        InputError: the cache cannot be written.
    """
    with refusing_writes(stem.parent):
        stem.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(stem.with_suffix(".lock"))  # the system lets go of it when a process dies
        lock.acquire()
    try:
        for leftover in stem.parent.glob(f".{stem.name}.*.tmp*"):
            leftover.unlink()
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def refusing_writes(folder: Path) -> Iterator[None]:
    """Turns an OSError inside into an InputError that blames the cache, not the data."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"the cache {folder} cannot be written ({error.strerror or error}): give another "
            "folder by the environment variable CODISTILL_CACHE"
        ) from error
