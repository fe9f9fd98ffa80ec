"""Networks by name."""

import contextlib
import inspect

import torch
from torch import nn

from codistill.errors import InputError, MissingExtraError, did_you_mean
from codistill.importing import import_object, optional
from codistill.names import NETWORKS
from codistill.networks.cutting.from_module import from_module
from codistill.networks.cutting.libraries import timm_network, torchvision_network
from codistill.networks.network import Network


def build_network(
    name: str,
    num_classes: int,
    *,
    image_size: tuple[int, int] = (32, 32),
    pretrained: bool = False,
) -> Network:
    """A new network.

    Args:
        name: one of `NETWORKS`; `timm/NAME`; `torchvision/NAME`; or `package.module:callable`,
            which is called with `num_classes` and returns a `Network` or any classifier.
        num_classes: C.
        image_size: height and width of the images in pixels, for networks that depend on it.
        pretrained: whether to start from the weights that timm or torchvision publish.

    Raises:
        InputError: no network is called that, or what it names is no classifier of C classes.
    """
    network = _build(name, num_classes, image_size, pretrained)
    network.architecture = name
    return network


def _build(name: str, num_classes: int, image_size: tuple[int, int], pretrained: bool) -> Network:
    library, _, model = name.partition("/")
    if library == "timm" and "/" in name:
        return timm_network(model, num_classes, image_size, pretrained)
    if library == "torchvision" and "/" in name:
        return torchvision_network(model, num_classes, image_size, pretrained)
    if pretrained:
        raise InputError(
            f"there are no published weights of network {name!r}: leave out --pretrained, or give "
            "a file by --weights"
        )
    if ":" in name:
        return _of_callable(name, num_classes, image_size)
    if name not in NETWORKS:
        raise InputError(
            f"network {name!r} is not known: {_near(name)} Or give timm/NAME, torchvision/NAME, "
            "package.module:callable"
        )
    family, arguments = NETWORKS[name]
    return import_object(f"codistill.networks:{family}")(*arguments, num_classes=num_classes)


def _near(name: str) -> str:
    """A hint at the network of a library that has this name, or else at one of ours."""
    for library, has in (
        ("timm", lambda timm: timm.is_model(name.partition(".")[0])),
        ("torchvision", lambda vision: name in vision.models.list_models(module=vision.models)),
    ):
        with contextlib.suppress(MissingExtraError):
            if has(optional(library, f"network {name}")):
                return f"did you mean '{library}/{name}'?"
    return did_you_mean(name, NETWORKS)


def _of_callable(name: str, num_classes: int, image_size: tuple[int, int]) -> Network:
    build = import_object(name)
    try:
        with contextlib.suppress(ValueError):  # some built-ins have no signature
            inspect.signature(build).bind(num_classes=num_classes)
    except TypeError as error:
        raise InputError(f"{name} cannot be called as f(num_classes=...): {error}") from error
    network = build(num_classes=num_classes)
    if isinstance(network, nn.Module):
        kinds = {p.dtype for p in network.parameters() if p.is_floating_point()}
        if kinds - {torch.float32}:
            raise InputError(
                f"{name} returned weights of {' and '.join(sorted(map(str, kinds)))}, and images "
                "are of torch.float32: let it return network.float(), and give --precision bf16 "
                "for a faster forward pass"
            )
    if isinstance(network, Network):
        return network
    if not isinstance(network, nn.Module):
        raise InputError(
            f"{name} returned a {type(network).__name__}, not a codistill.Network or another "
            "torch.nn.Module"
        )
    network = from_module(network, image_size)
    if network.num_classes != num_classes:
        raise InputError(
            f"{name} returned a classifier of {network.num_classes} classes, not {num_classes}"
        )
    return network
