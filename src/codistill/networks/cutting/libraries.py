"""Classifiers of timm and torchvision by name."""

from typing import Any

from codistill.errors import InputError, did_you_mean, reason
from codistill.importing import optional
from codistill.networks.cutting.from_module import from_module
from codistill.networks.network import Network
from codistill.networks.start import load_fitting

_ERRORS = (AssertionError, OSError, RuntimeError, TypeError, ValueError)


def timm_network(
    name: str, num_classes: int, image_size: tuple[int, int], pretrained: bool
) -> Network:
    """The model that timm calls so, with a new classifier; `pretrained` downloads its weights."""
    timm = optional("timm", f"network timm/{name}")
    if not name:
        raise InputError("timm/ names no model: give timm/NAME, such as timm/resnet18")
    plain = name.partition(".")[0]
    if not timm.is_model(plain):
        raise InputError(f"timm has no model {plain!r}: {did_you_mean(plain, timm.list_models())}")
    settings: dict[str, Any] = {}
    try:
        published = timm.get_pretrained_cfg(name)
        if published is not None and published.fixed_input_size:
            settings["img_size"] = image_size
        model = timm.create_model(name, pretrained, num_classes=num_classes, **settings)
    except _ERRORS as error:
        raise InputError(_why(f"timm/{name}", image_size, pretrained, error)) from error
    return from_module(model, image_size)


def torchvision_network(
    name: str, num_classes: int, image_size: tuple[int, int], pretrained: bool
) -> Network:
    """The classifier that torchvision calls so, with a new last layer where it is pretrained."""
    models = optional("torchvision", f"network torchvision/{name}").models
    known = models.list_models(module=models)
    if name not in known:
        raise InputError(f"torchvision has no classifier {name!r}: {did_you_mean(name, known)}")
    settings: dict[str, Any] = {"num_classes": num_classes}
    if name.startswith("vit_"):
        settings["image_size"] = image_size[0]
    if name in ("googlenet", "inception_v3"):
        settings |= {"aux_logits": False, "init_weights": True}
        if pretrained:
            raise InputError(
                f"torchvision's weights of {name} want images normalised in their own way: take "
                "those of timm, as timm/inception_v3"
            )
    try:
        model = models.get_model(name, **settings)
        published: dict[str, Any] = {}
        if pretrained:
            published = models.get_model_weights(name).DEFAULT.get_state_dict(check_hash=True)
    except _ERRORS as error:
        raise InputError(_why(f"torchvision/{name}", image_size, pretrained, error)) from error
    network = from_module(model, image_size)
    if pretrained:
        load_fitting(network, published, f"the file of torchvision/{name}", image_size=image_size)
    return network


def _why(name: str, image_size: tuple[int, int], pretrained: bool, error: Exception) -> str:
    height, width = image_size
    if pretrained and isinstance(error, OSError):
        return (
            f"the weights of {name} cannot be downloaded ({reason(error)}): leave out "
            "--pretrained, or give a file of them by --weights"
        )
    return f"{name} cannot be built for images of {height}x{width}: {reason(error)}"
