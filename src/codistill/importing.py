"""Imports that happen late: objects named in a setting, and optional packages."""

import importlib
from types import ModuleType
from typing import Any

from codistill.errors import InputError, MissingExtraError

_declared: list[Any] = []  # the operators that are declared live as long as this does


def import_object(path: str) -> Any:
    """What `package.module:name` stands for."""
    module_name, _, name = path.partition(":")
    if not (module_name and name):
        raise InputError(f"{path!r} names nothing: give package.module:name")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise InputError(
            f"cannot import {module_name!r} of {path!r} ({error}): "
            "give package.module:name, importable from where the command runs (see PYTHONPATH)"
        ) from error
    try:
        return getattr(module, name)
    except AttributeError as error:
        raise InputError(
            f"module {module_name!r} has no {name!r}, asked for as {path!r}"
        ) from error


def require_pillow() -> None:
    """Raises MissingExtraError where Pillow is not installed."""
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("pillow", "images", "reading encoded images") from error


def require_matplotlib() -> None:
    """Raises MissingExtraError without matplotlib."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("matplotlib", "report", "drawing curves") from error


def require_jinja() -> Any:
    """The module jinja2. Raises MissingExtraError without it."""
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtraError("jinja2", "report", "writing a page") from error
    return jinja2


def import_torchvision(purpose: str) -> ModuleType:
    """The module torchvision. Raises MissingExtraError, which says `purpose`, without it."""
    return _import("torchvision", purpose)


def import_timm(purpose: str) -> ModuleType:
    """The module timm. Raises MissingExtraError, which says `purpose`, without it."""
    _import("torchvision", purpose)
    return _import("timm", purpose)


def _import(package: str, purpose: str) -> ModuleType:
    """A package of the extra `vision`, also where torchvision was built for another PyTorch.

    The registry's torchvision is linked to CUDA. Beside a PyTorch without CUDA its C++ part does
    not load, which it takes calmly, but its Python part then describes operators that were never
    declared, and `import torchvision` fails with "operator torchvision::nms does not exist"; so
    does timm, which imports it. Here the two operators are declared, without an implementation:
    nothing that classifies images calls them.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise MissingExtraError(package, "vision", purpose) from error
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error) or _declared:
            raise
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)
    return importlib.import_module(package)


def scipy_stats() -> Any:
    """The module scipy.stats."""
    try:
        from scipy import stats
    except ImportError as error:
        raise MissingExtraError("scipy", "report", "comparing runs") from error
    return stats


def captum_attr() -> Any:
    try:
        from captum import attr
    except ImportError as error:
        raise MissingExtraError("captum", "report", "Grad-CAM") from error
    return attr
