"""Weights that a network starts from: those of a file, but for a classifier of other classes."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from codistill.errors import InputError
from codistill.files import read_weights
from codistill.networks.network import Network


def start_from(network: Network, file: Path) -> None:
    """Puts the weights in `file` into a network.

    Args:
        network: what is going to be trained.
        file: a student of a run, or the state dict of the same architecture under the names of its
            own library: .safetensors, or what torch.save wrote.
    """
    if not file.is_file():
        raise InputError(f"weights: there is no file {file}")
    state = {
        name.removeprefix("module."): x for name, x in _read(file).items() if isinstance(x, Tensor)
    }
    ours = {original: name for name, original in network.names.items()}
    load_matching(network, {ours.get(name, name): x for name, x in state.items()}, str(file))


def load_matching(module: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Loads all weights but those of a classifier of another number of classes, which stays new.

    Raises:
        InputError: something is left over, absent, or of another shape.
    """
    own = module.state_dict()
    strange = sorted(weights.keys() ^ own.keys())
    other = [n for n in own if n in weights and weights[n].shape != own[n].shape]
    new = _classifier(module)
    wrong = strange + [n for n in other if n not in new or own[n].shape[1:] != weights[n].shape[1:]]
    if wrong:
        kind = "absent from" if wrong[0] not in weights else "not fitting in"
        raise InputError(
            f"{where} does not hold the weights of this network: {wrong[0]} is {kind} it, and "
            f"{len(wrong) - 1} more: give weights of the same architecture"
        )
    module.load_state_dict({n: x for n, x in weights.items() if n not in other}, strict=False)


def _classifier(module: nn.Module) -> set[str]:
    """The names of the last layer's weights."""
    layers = [n for n, m in module.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    return {f"{layers[-1]}.{n}" for n in ("weight", "bias")} if layers else set()


def _read(file: Path) -> Mapping[str, Any]:
    if file.suffix == ".safetensors":
        return read_weights(file)[0]
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, LookupError, ValueError, EOFError) as error:
        raise InputError(f"{file} is damaged, or holds more than weights: {error}") from error
    for key in ("state_dict_ema", "state_dict", "model"):  # as timm's and others' training keep it
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise InputError(f"{file} holds no state dict: give names and tensors")
    return content
