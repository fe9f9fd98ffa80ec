"""The tensors in a file of weights by name, whatever dicts a trainer put around them."""

import re
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from codistill.errors import InputError
from codistill.files import reading
from codistill.messages import shorten
from codistill.networks.pickled import Other, is_safetensors, read_pickled
from codistill.tensor_files import read_weights

_DEEPEST = 8  # dicts in dicts
_HEAD = re.compile(r"peers\.heads\.(\d+)\.")


def split_choice(file: Path) -> tuple[Path, str]:
    """The path and the name in FILE#NAME; the name is empty where none is given."""
    path, _, choice = str(file).rpartition("#")
    return (file, "") if file.exists() or not path else (Path(path), choice)


def parts_of(file: Path) -> tuple[int, list[str]]:
    """The number of peers in a run's weights*.safetensors, and the method's own parts beside them.

    Of other files: 0, and nothing.
    """
    if not file.is_file() or not is_safetensors(file):
        return 0, []
    with reading(file, "safetensors file"), safe_open(file, "pt") as opened:
        names = opened.keys()
    peers = len({head[1] for name in names if (head := _HEAD.match(name))})
    parts = {name.split(".")[0] for name in names} - {"peers"}
    return peers, sorted(parts) if peers else []


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a file by name; the names of dicts around them come first.

    Raises:
        InputError: the file is absent, damaged, or holds no tensors with names.
    """
    if not file.exists():
        raise InputError(f"weights: there is no file {file}")
    if file.is_dir():
        there = [
            p.name for e in ("safetensors", "pt", "pth", "bin", "ckpt") for p in file.glob(f"*.{e}")
        ]
        has = f"one of {shorten(sorted(there))}" if there else "a file of weights"
        raise InputError(f"weights: {file} is a folder: give {has} in it")
    if is_safetensors(file):
        return _by_peer(read_weights(file)[0])
    found: dict[str, Tensor] = {}
    models: list[str] = []
    _flatten(read_pickled(file), "", 0, found, models)
    if not found and models:
        raise InputError(
            f"{file} holds a whole pickled model ({models[0]}), not its weights, and nothing in it "
            "is executed: where it was made, write torch.save(model.state_dict(), FILE)"
        )
    if not found:
        raise InputError(f"{file} holds no state dict: give names and tensors")
    return found


def _flatten(
    content: Any, name: str, depth: int, found: dict[str, Tensor], models: list[str]
) -> None:
    """Puts the tensors in nested dicts into `found`, and the classes of pickled models, too."""
    if isinstance(content, Tensor) and name:
        found[name] = content
    elif isinstance(content, Other) and "_modules" in content:
        models.append(content.name)
    elif isinstance(content, dict) and depth < _DEEPEST:
        for key, value in content.items():
            if isinstance(key, str):
                _flatten(value, f"{name}.{key}" if name else key, depth + 1, found, models)


def _by_peer(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a run, under peer0, peer1 and so on, each with the trunk; others unchanged."""
    peers = sorted({int(head[1]) for name in tensors if (head := _HEAD.match(name))})
    if not peers:
        return tensors
    stages = {name.split(".")[2] for name in tensors if name.startswith("peers.trunk.")}
    found: dict[str, Tensor] = {}
    for name, x in tensors.items():
        part, _, rest = name.removeprefix("peers.").partition(".")
        k, _, inner = rest.partition(".")
        if part == "trunk":
            found |= {f"peer{peer}.stages.{rest}": x for peer in peers}
        elif part == "branches":
            stage, _, weight = inner.partition(".")
            found[f"peer{k}.stages.{int(stage) + len(stages)}.{weight}"] = x
        elif part == "heads":
            found[f"peer{k}.head.{inner}"] = x
        else:
            found[name] = x
    return found
