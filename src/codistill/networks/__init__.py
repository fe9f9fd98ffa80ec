"""Image classifiers cut into stages."""

import contextlib
import inspect

from codistill.errors import InputError, did_you_mean
from codistill.importing import import_object
from codistill.names import NETWORKS
from codistill.networks.bottleneck_resnet import bottleneck_resnet
from codistill.networks.densenet import densenet, densenet_bc
from codistill.networks.mobilenet_v1 import mobilenet_v1
from codistill.networks.mobilenet_v2 import mobilenet_v2
from codistill.networks.network import Network
from codistill.networks.resnet import resnet
from codistill.networks.shufflenet_v2 import shufflenet_v2
from codistill.networks.vgg import vgg
from codistill.networks.wide_resnet import wide_resnet

__all__ = [
    "NETWORKS",
    "Network",
    "bottleneck_resnet",
    "build_network",
    "densenet",
    "densenet_bc",
    "mobilenet_v1",
    "mobilenet_v2",
    "resnet",
    "shufflenet_v2",
    "vgg",
    "wide_resnet",
]


def build_network(name: str, num_classes: int) -> Network:
    """A new network by its name, or by `package.module:callable`, called with `num_classes`."""
    if ":" in name:
        build = import_object(name)
        try:
            with contextlib.suppress(ValueError):  # some built-ins have no signature
                inspect.signature(build).bind(num_classes=num_classes)
        except TypeError as error:
            raise InputError(f"{name} cannot be called as f(num_classes=...): {error}") from error
        network = build(num_classes=num_classes)
        if not isinstance(network, Network):
            raise InputError(f"{name} returned a {type(network).__name__}, not a codistill.Network")
        return network
    if name not in NETWORKS:
        raise InputError(f"network {name!r} is not known: {did_you_mean(name, NETWORKS)}")
    family, arguments = NETWORKS[name]
    return import_object(f"codistill.networks:{family}")(*arguments, num_classes=num_classes)
