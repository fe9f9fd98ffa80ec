"""torchvision and timm, imported only when they are asked for, and also beside another PyTorch.

The registry's torchvision is linked to CUDA. Beside a PyTorch without CUDA its C++ part does not
load, which it takes calmly, but its Python part then describes operators that were never declared,
and `import torchvision` fails with "operator torchvision::nms does not exist". So does timm, which
imports it. Here the two are declared, without an implementation: nothing that classifies images
calls them. Where torchvision's own C++ part loads, nothing is done.
"""

import importlib
from types import ModuleType

import torch

from codistill.errors import MissingExtraError

_declared: list[torch.library.Library] = []  # what they declare lives as long as they do


def import_torchvision(purpose: str) -> ModuleType:
    """The module torchvision. Raises MissingExtraError, which says `purpose`, without it."""
    return _import("torchvision", purpose)


def import_timm(purpose: str) -> ModuleType:
    """The module timm. Raises MissingExtraError, which says `purpose`, without it."""
    _import("torchvision", purpose)
    return _import("timm", purpose)


def _import(package: str, purpose: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise MissingExtraError(package, "vision", purpose) from error
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error) or _declared:
            raise
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)
    return importlib.import_module(package)
