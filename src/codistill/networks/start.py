"""Weights that a network starts from: those of a file, except a classifier of other classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from codistill.errors import InputError
from codistill.networks.network import Network
from codistill.tensor_files import read_state, read_weights


def start_from(network: Network, file: Path) -> None:
    """Loads the weights in a file into a network.

    Args:
        network: the network that will be trained.
        file: a student of a run, or a state dict of the same architecture under the names of its
            own library: .safetensors, or a file that torch.save wrote.

    Raises:
        InputError: the file is absent, damaged, or of another architecture.
    """
    if not file.is_file():
        raise InputError(f"weights: there is no file {file}")
    state = {
        name.removeprefix("module."): x for name, x in _read(file).items() if isinstance(x, Tensor)
    }
    load_matching(network, network.from_original(state), network.num_classes, str(file))


def renew_equal_classifiers(networks: Sequence[Network]) -> None:
    """Draws the last layer of a network again if an earlier one has the same weights.

    Peers that begin equal and see the same images stay equal, and have nothing to teach.
    """
    for k, network in enumerate(networks):
        own = network.original_state_dict()
        for other in (n.original_state_dict() for n in networks[:k]):
            if own.keys() == other.keys() and all(torch.equal(own[n], other[n]) for n in own):
                for layer in _classifiers(network):
                    layer.reset_parameters()
                break


def load_matching(
    module: nn.Module, weights: Mapping[str, Tensor], num_classes: int, where: str
) -> None:
    """Loads all weights, except those of a classifier of another number of classes.

    Raises:
        InputError: something is left over, absent, or of another shape.
    """
    own = module.state_dict()
    other = {n for n in own.keys() & weights.keys() if own[n].shape != weights[n].shape}
    of_classes = {
        n
        for n in other
        if own[n].shape[:1] == (num_classes,) and own[n].shape[1:] == weights[n].shape[1:]
    }
    wrong = sorted((weights.keys() ^ own.keys()) | (other - of_classes))
    if wrong:
        name = wrong[0]
        why = "has another shape" if name in other else "is absent"
        why = why if name in own else "does not belong to it"
        raise InputError(
            f"{where} does not hold the weights of this network: {name} {why}, and "
            f"{len(wrong) - 1} more do not fit: give weights of the same architecture and size of "
            "images"
        )
    module.load_state_dict({n: x for n, x in weights.items() if n not in other}, strict=False)


def _classifiers(network: Network) -> list[nn.Linear | nn.Conv2d]:
    """The layers with one output per class: those of the head, else those of the network."""
    kinds = nn.Linear | nn.Conv2d
    for part in (network.head, network):
        layers = [m for m in part.modules() if isinstance(m, kinds)]
        layers = [m for m in layers if len(m.weight) == network.num_classes]
        if layers:
            return layers
    return []


def _read(file: Path) -> Mapping[str, Any]:
    if file.suffix == ".safetensors":
        return read_weights(file)[0]
    content = read_state(file)
    for key in ("state_dict_ema", "state_dict", "model"):  # as timm's and others' training keep it
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise InputError(f"{file} holds no state dict: give names and tensors")
    return content
