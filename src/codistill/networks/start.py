"""Weights that a network starts from: those of a file, but for a classifier of other classes."""

import pickle
from collections.abc import Mapping, Sequence
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


def renew_equal_classifiers(networks: Sequence[Network]) -> None:
    """Draws the last layer of a network anew where an earlier one has the same weights.

    Peers that begin equal and see the same images stay equal, and have nothing to teach.
    """
    for k, network in enumerate(networks):
        own = network.original_state_dict()
        for other in (n.original_state_dict() for n in networks[:k]):
            if own.keys() == other.keys() and all(torch.equal(own[n], other[n]) for n in own):
                _last_layer(network)[1].reset_parameters()
                break


def load_matching(module: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Loads all weights but those of a classifier of another number of classes, which stays new.

    Raises:
        InputError: something is left over, absent, or of another shape.
    """
    own = module.state_dict()
    strange = sorted(weights.keys() ^ own.keys())
    other = [n for n in own if n in weights and weights[n].shape != own[n].shape]
    name, _ = _last_layer(module)
    new = {f"{name}.weight", f"{name}.bias"}
    wrong = strange + [n for n in other if n not in new or own[n].shape[1:] != weights[n].shape[1:]]
    if wrong:
        kind = "absent from" if wrong[0] not in weights else "not fitting in"
        raise InputError(
            f"{where} does not hold the weights of this network: {wrong[0]} is {kind} it, and "
            f"{len(wrong) - 1} more: give weights of the same architecture"
        )
    module.load_state_dict({n: x for n, x in weights.items() if n not in other}, strict=False)


def _last_layer(module: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d]:
    """The last layer with weights, which tells the classes apart; and its name."""
    kinds = nn.Linear | nn.Conv2d
    layers = [(name, m) for name, m in module.named_modules() if isinstance(m, kinds)]
    if not layers:
        raise InputError(f"a {type(module).__name__} has no linear layer and no convolution")
    return layers[-1]


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
