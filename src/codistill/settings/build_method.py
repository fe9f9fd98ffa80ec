"""Builds the method, the networks and the optimizer that a configuration names."""

import dataclasses
import functools
import inspect
from pathlib import Path
from typing import Any

import torch

from codistill.checks import typed_arguments
from codistill.errors import InputError
from codistill.files import place_of
from codistill.methods import method_class
from codistill.methods.length import Length, scaled_defaults
from codistill.methods.method import Method
from codistill.methods.optimizers import sgd
from codistill.networks import renew_equal_classifiers, start_from
from codistill.networks.build import build_network
from codistill.networks.peers import Peers
from codistill.settings.build_data import Data
from codistill.settings.config import Config
from codistill.training.state import MakeOptimizer


def build_method(config: Config, num_classes: int, image_size: tuple[int, int]) -> Method:
    """The method of a configuration with its peers, on the CPU.

    Weights are drawn from the seed, or read from the files that the configuration names.
    """
    if config.shared and len(set(config.start_weights())) > 1:
        raise InputError(
            "weights differ from peer to peer, but the peers share their first stages: give one "
            "file, or shared=0"
        )
    torch.manual_seed(config.seed)
    networks = []
    for name, weights in zip(config.networks(), config.start_weights(), strict=True):
        networks.append(
            build_network(name, num_classes, image_size=image_size, pretrained=config.pretrained)
        )
        if weights is not None:
            start_from(networks[-1], weights)
    renew_equal_classifiers(networks)
    peers = Peers(networks, config.shared, config.recompute)
    options = {key: value for key, value in config.method.items() if key != "name"}
    build = method_class(config.method["name"])
    try:
        inspect.signature(build).bind(peers, **options)
    except TypeError as error:
        raise InputError(f"method {config.method['name']!r}: {error}") from error
    method = build(peers, **typed_arguments(build, options, "method."))
    return method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def require_held_out(method: Method, name: str, data: Data) -> None:
    """Raises InputError if a method needs held-out images and there are none."""
    if method.needs_held_out and "val" not in data.evaluate_on:
        raise InputError(
            f"method {name!r}, as it is set, measures its peers on held-out images: "
            "give --data.val_fraction 0.1, or another number above 0"
        )


def resolve(config: Config, data: Data) -> Config:
    """The configuration with every default written out, also those that depend on the data."""
    return dataclasses.replace(
        config,
        method=_method_defaults(config.method["name"])
        | scaled_defaults(method_class(config.method["name"]), length_of(config, data))
        | config.method
        | {name: str(path) for name, path in network_files(config.method).items()},
        weights=config.weights
        and ",".join(str(path.absolute()) if path else "-" for path in config.start_weights()),
        data=data.settings,
        threads=torch.get_num_threads(),
    )


def length_of(config: Config, data: Data) -> Length:
    """How long the training of a configuration is."""
    return Length(config.epochs, config.epochs * len(data.train))


def network_files(method: dict[str, Any]) -> dict[str, Path]:
    """The options of a method that are files of networks (*.safetensors), such as KD's teacher."""
    options = {n: place_of(o) for n, o in method.items() if isinstance(o, str | Path)}
    return {
        n: path.absolute()
        for n, path in options.items()
        if path.suffix == ".safetensors" and path.is_file()
    }


def _method_defaults(name: str) -> dict[str, Any]:
    parameters = inspect.signature(method_class(name)).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return {"name": name} | defaults


def make_optimizer(config: Config) -> MakeOptimizer:
    """The function that makes the optimizer of a configuration for given parameters."""
    return functools.partial(
        sgd,
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
    )
