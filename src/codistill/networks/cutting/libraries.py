"""Classifiers of timm and torchvision by name."""

import contextlib
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from codistill.errors import InputError, did_you_mean, reason
from codistill.importing import optional
from codistill.networks.classifier import renew_large_classifiers
from codistill.networks.cutting.from_module import from_module
from codistill.networks.cutting.published import (
    HOW_TO_GO_ON,
    NoWeightsError,
    require_torchvision_weights,
    timm_weights,
)
from codistill.networks.fitting import load_fitting
from codistill.networks.network import Network

_LARGE_PATCH = 8  # pixels: smaller patches leave out no more than the strides of other networks
_WITH_AUX = ("googlenet", "inception_v3")  # whose further classifiers are left out
_ERRORS = (AssertionError, OSError, RuntimeError, TypeError, ValueError)


def timm_network(
    name: str, num_classes: int, image_size: tuple[int, int], pretrained: bool
) -> Network:
    """The model that timm calls so, with a new classifier; `pretrained` loads published weights."""
    timm = optional("timm", f"network timm/{name}")
    if not name:
        raise InputError("timm/ names no model: give timm/NAME, such as timm/resnet18")
    plain = name.partition(".")[0]
    if not timm.is_model(plain):
        hint = did_you_mean(plain, timm.list_models(), "timm.list_models() in Python")
        raise InputError(f"timm has no model {plain!r}: {hint}")

    def make(size: tuple[int, int], pretrained: bool) -> nn.Module:
        published = timm.get_pretrained_cfg(name)
        settings = timm_settings(name, size)
        if pretrained and published is not None:
            settings["pretrained_cfg_overlay"] = timm_weights(published, f"timm/{name}")
        return timm.create_model(name, pretrained, num_classes=num_classes, **settings)

    network = _cut(make, f"timm/{name}", image_size, pretrained)
    published = timm.get_pretrained_cfg(name)
    if pretrained and published is not None and published.num_classes != num_classes:
        renew_large_classifiers(network)
    return network


def torchvision_network(
    name: str, num_classes: int, image_size: tuple[int, int], pretrained: bool
) -> Network:
    """The classifier that torchvision calls so, with a new last layer where it is pretrained."""
    models = optional("torchvision", f"network torchvision/{name}").models
    known = models.list_models(module=models)
    if name not in known:
        hint = did_you_mean(name, known, "torchvision.models.list_models() in Python")
        raise InputError(f"torchvision has no classifier {name!r}: {hint}")
    if name in _WITH_AUX and pretrained:
        raise InputError(
            f"torchvision's weights of {name} want images normalised in their own way: take "
            "those of timm, as timm/inception_v3"
        )
    published: dict[str, Any] = {}

    def make(size: tuple[int, int], pretrained: bool) -> nn.Module:
        model = models.get_model(name, **torchvision_settings(name, num_classes, size))
        if pretrained:
            weights = models.get_model_weights(name).DEFAULT
            require_torchvision_weights(weights.url, f"torchvision/{name}")
            published.update(weights.get_state_dict(check_hash=True))
        return model

    network = _cut(make, f"torchvision/{name}", image_size, pretrained)
    if pretrained:
        load_fitting(network, published, f"the file of torchvision/{name}", image_size=image_size)
    return network


def timm_settings(name: str, image_size: tuple[int, int]) -> dict[str, Any]:
    """What timm's constructor needs beside the classes: the size, of a model that depends on it."""
    published = optional("timm", f"network timm/{name}").get_pretrained_cfg(name)
    sized = published is not None and published.fixed_input_size
    return {"img_size": image_size} if sized else {}


def torchvision_settings(
    name: str, num_classes: int, image_size: tuple[int, int]
) -> dict[str, Any]:
    """The arguments of torchvision's constructor: classes, and the size where it depends on it."""
    settings: dict[str, Any] = {"num_classes": num_classes}
    if name in _WITH_AUX:
        settings |= {"aux_logits": False, "init_weights": True}
    if name.startswith("vit_"):
        settings["image_size"] = image_size[0]
    return settings


def _cut(
    make: Callable[[tuple[int, int], bool], nn.Module],
    name: str,
    image_size: tuple[int, int],
    pretrained: bool,
) -> Network:
    """The network of a model that `make` builds; an error names sizes of images that work."""
    try:
        try:
            model = make(image_size, pretrained)
        except NoWeightsError:
            raise
        except _ERRORS as error:
            raise InputError(_why(name, image_size, pretrained, error)) from error
        _refuse_edge(model, name, image_size)
        return from_module(model, image_size)
    except InputError as error:
        if isinstance(error, NoWeightsError) or isinstance(error.__cause__, OSError):
            raise
        works = [size for size in _sizes_near(name, image_size) if _takes(make, size)]
        if not works:
            raise
        (height, width), sides = image_size, [f"{h}x{w}" for h, w in works]
        if height == width:
            sides = [str(h) for h, _ in works]
        raise InputError(
            f"{error}. Images of {height}x{width} do not suit {name}: give --data.image_size "
            f"{' or '.join(sides)}"
        ) from error


def _refuse_edge(model: nn.Module, name: str, image_size: tuple[int, int]) -> None:
    """Raises InputError if a transformer would leave out what is no whole patch of an image."""
    embed = getattr(model, "patch_embed", None)
    patch = getattr(embed, "patch_size", None)
    patch = patch if isinstance(patch, tuple) else (patch, patch)
    if getattr(embed, "dynamic_img_pad", False) or not all(isinstance(p, int) for p in patch):
        return
    if any(p >= _LARGE_PATCH and side % p for side, p in zip(image_size, patch, strict=True)):
        raise InputError(
            f"{name} cuts images into patches of {patch[0]}x{patch[1]} pixels, and leaves out the "
            "edge that is no whole patch"
        )


def _sizes_near(name: str, image_size: tuple[int, int]) -> list[tuple[int, int]]:
    """Smaller and larger sizes, in pixels, that a patch divides: the name's, or 32."""
    found = re.search(r"(?:patch|_p|vit_[a-z]+_)(\d+)", name)
    patch = int(found[1]) if found else 32
    lower = tuple(side // patch * patch for side in image_size)
    upper = tuple(-(-side // patch) * patch for side in image_size)
    return [(h, w) for h, w in (lower, upper) if h and w and (h, w) != image_size]


def _takes(make: Callable[[tuple[int, int], bool], nn.Module], size: tuple[int, int]) -> bool:
    """Whether a model can be built for such images, and computes something for them."""
    with contextlib.suppress(Exception), torch.no_grad():
        make(size, False).eval()(torch.zeros(1, 3, *size))
        return True
    return False


def _why(name: str, image_size: tuple[int, int], pretrained: bool, error: Exception) -> str:
    height, width = image_size
    if pretrained and isinstance(error, OSError):
        return f"the weights of {name} cannot be fetched ({reason(error)}): {HOW_TO_GO_ON}"
    return f"{name} cannot be built for images of {height}x{width}: {reason(error)}"
