"""Builds the method, the networks and the optimizer that a configuration names."""

import dataclasses
import inspect
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from codistill.checks import typed_arguments
from codistill.errors import InputError, reason
from codistill.files import place_of
from codistill.messages import equal_notes_once, note
from codistill.methods import method_class
from codistill.methods.length import Length, scaled_defaults
from codistill.methods.method import Method
from codistill.methods.optimizers import (
    MakeOptimizer,
    in_groups,
    optimizer_by_name,
    shares_of,
)
from codistill.methods.parameters import parameter_counts
from codistill.networks import Network, renew_equal_classifiers
from codistill.networks.build import build_network
from codistill.networks.peers import Peers
from codistill.networks.start import start_each_from
from codistill.networks.weights_in_file import parts_of, split_choice
from codistill.settings.build_data import Data
from codistill.settings.config import Config
from codistill.settings.fitting import fitting_epochs
from codistill.settings.keeping import names_kept
from codistill.settings.start_files import start_files
from codistill.training.updates import UpdateOptions, frozen_stages


def build_method(
    config: Config, num_classes: int, image_size: tuple[int, int], classes: Sequence[str] = ()
) -> Method:
    """The method of a configuration with its peers, on the CPU.

    Weights are drawn from the seed, or read from the files that the configuration names. A teacher
    is brought into the order of `classes`, the names of the classes.
    """
    starts = start_files(config)
    read = dict.fromkeys(start and split_choice(start)[0] for start in starts)
    if config.shared and len(read) > 1:
        raise InputError(_DIFFERENT_TRUNKS)
    torch.manual_seed(config.seed)
    with equal_notes_once():
        networks = [
            build_network(
                name,
                num_classes,
                image_size=image_size,
                pretrained=config.pretrained and start is None,
            )
            for name, start in zip(config.networks(), starts, strict=True)
        ]
        start_each_from(networks, starts, image_size)
    if config.weights:
        _require_one_trunk(networks, config.shared)
    renew_equal_classifiers(networks)
    for file in filter(None, read):
        if left := parts_of(file)[1]:
            note(f"{file}: of the method, {', '.join(left)} begins anew: peers alone are taken")
    peers = Peers(networks, config.shared, config.recompute, classes)
    options = {key: value for key, value in config.method.items() if key != "name"}
    build = method_class(config.method["name"])
    try:
        inspect.signature(build).bind(peers, **options)
    except TypeError as error:
        raise InputError(f"method {config.method['name']!r}: {error}") from error
    method = build(peers, **typed_arguments(build, options, "method."))
    return method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


_DIFFERENT_TRUNKS = (
    "weights differ from peer to peer, but the peers share their first stages: give one file, or "
    "shared=0"
)


def _require_one_trunk(networks: list[Network], shared: int) -> None:
    """Raises InputError if the stages that will be shared have other weights in another peer."""
    trunks = [network.stages[:shared].state_dict() for network in networks]
    for trunk in trunks[1:]:
        if trunk.keys() == trunks[0].keys() and not all(
            torch.equal(x, trunks[0][name]) for name, x in trunk.items()
        ):
            raise InputError(_DIFFERENT_TRUNKS)


def build_with_student(
    config: Config, num_classes: int, image_size: tuple[int, int], classes: Sequence[str] = ()
) -> tuple[Method, Config]:
    """As `build_method`, with the student at a place that the method keeps.

    Returns:
        The method, and the configuration with the networks in the order in which they were built.

    Raises:
        InputError: the method does not keep the peer that `keep` asks for.
    """
    method = build_method(config, num_classes, image_size, classes)
    places = {name: kept.k for name, kept in method.students().items()}
    names = config.networks()
    if config.student is not None and config.student not in [names[k] for k in places.values()]:
        names.remove(config.student)
        names.insert(max(places.values()), config.student)
        config = dataclasses.replace(config, network=",".join(names))
        method = build_method(config, num_classes, image_size, classes)
    names_kept(config, places, parameter_counts(method))
    return method, config


def require_trainable(method: Method, config: Config, data: Data) -> None:
    """Checks, before anything is written, what only the beginning of a training would find.

    Raises:
        InputError: images have to be held out, and none are; the optimizer, or the stages to
            freeze, do not suit the method.
    """
    frozen_stages(method, update_options(config).freeze)
    method.optimizers(make_optimizer(config, method))
    if "val" in data.evaluate_on:
        return
    give = "give --data.val_fraction 0.1, or another number above 0"
    if method.needs_held_out:
        name = config.method["name"]
        raise InputError(
            f"method {name!r}, as it is set, measures its peers on held-out images: {give}"
        )
    if config.patience is not None:
        raise InputError(f"patience is {config.patience}, and no images are held out: {give}")


def resolve(config: Config, data: Data) -> Config:
    """The configuration with every default written out, also those that depend on the data."""
    starts = config.pretrained or config.weights is not None
    batch_size = data.train.batch_size
    steps = -(-data.train.images // batch_size)  # all, also where limit_steps takes a few
    config = dataclasses.replace(
        config,
        batch_size=batch_size,
        epochs=config.epochs or fitting_epochs(steps, starts),
    )
    return dataclasses.replace(
        config,
        method=_method_defaults(config.method["name"])
        | scaled_defaults(method_class(config.method["name"]), length_of(config, data))
        | config.method
        | {name: str(path) for name, path in network_files(config.method).items()},
        network=",".join(config.networks()) if config.student else config.network,
        weights=config.weights
        and ",".join(str(path.absolute()) if path else "-" for path in start_files(config)),
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


def make_optimizer(config: Config, method: Method) -> MakeOptimizer:
    """The function that makes the optimizers of a configuration, for given parameters.

    Raises:
        InputError: there is no such optimizer, or it does not take the options.
    """
    of_sgd = {"momentum": config.momentum, "nesterov": config.nesterov}
    options = (of_sgd if config.optimizer == "sgd" else {}) | config.optimizer_options
    make = optimizer_by_name(config.optimizer)
    rates = {"lr": config.lr, "weight_decay": config.weight_decay}

    def made(params: Any, **others: Any) -> Optimizer:
        try:
            return make(params, **rates | options | others)
        except (TypeError, ValueError, AssertionError) as error:
            given = ", ".join(f"{name}={value!r}" for name, value in options.items())
            raise InputError(
                f"optimizer {config.optimizer!r} does not take these options "
                f"({given or 'none'}): {reason(error)}"
            ) from error

    if config.layer_decay == 1 and config.decay_norms:
        return made
    return in_groups(made, shares_of(method.peers, config.layer_decay, config.decay_norms))


def update_options(config: Config) -> UpdateOptions:
    """How the steps of a configuration update the weights."""
    return UpdateOptions(**{f.name: getattr(config, f.name) for f in fields(UpdateOptions)})
