"""Imports that happen late: objects named in a setting, and optional packages."""

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from codistill.errors import InputError, MissingExtraError

_PACKAGES = {  # module -> the package that holds it, and the extra that installs the package
    "accelerate": ("accelerate", "tensorboard"),
    "captum": ("captum", "report"),
    "datasets": ("datasets", "hub"),
    "huggingface_hub": ("huggingface_hub", "export"),
    "jinja2": ("jinja2", "report"),
    "matplotlib": ("matplotlib", "report"),
    "onnx": ("onnx", "export"),
    "onnxruntime": ("onnxruntime", "export"),
    "onnxscript": ("onnxscript", "export"),
    "pyarrow": ("pyarrow", "parquet"),
    "scipy": ("scipy", "report"),
    "sklearn": ("scikit-learn", "digits"),
    "submitit": ("submitit", "slurm"),
    "timm": ("timm", "vision"),
    "torchvision": ("torchvision", "vision"),
}

_declared: list[Any] = []  # keeps torchvision's operators declared


def refuse_code(names: Iterable[str], place: Path | str) -> None:
    """Raises InputError if a name read from a file asks for code outside codistill.

    Args:
        names: names of methods, networks and loggers; package.module:name is code.
        place: the file, for the message.
    """
    libraries = ("timm/", "torchvision/")  # there a colon imports nothing
    code = [n for n in map(str.strip, names) if ":" in n and not n.startswith(libraries)]
    if code:
        raise InputError(
            f"{place} wants {', '.join(dict.fromkeys(code))} to be imported and called: if you "
            "trust it, give --trust_code true (in Python: trust_code=True)"
        )


def import_object(path: str) -> Any:
    """The object that `package.module:name` names. Raises InputError where there is none."""
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


def optional(module: str, purpose: str, extra: str = "") -> Any:
    """Imports a module of an optional package and returns it.

    Args:
        module: dotted name, such as "scipy.stats".
        purpose: what needs the module, for the message.
        extra: the extra that installs it. Default: the one in `_PACKAGES`.

    Raises:
        MissingExtraError: the package is not installed.
    """
    top = module.partition(".")[0]
    try:
        if top == "timm":  # it imports torchvision, which may need help
            _import("torchvision")
        _import(top)  # a module that is loaded already says nothing about its package
        return _import(module)
    except ImportError as error:
        absent = (error.name or top).partition(".")[0]
        package, usual = _PACKAGES[absent if absent in _PACKAGES else top]
        raise MissingExtraError(package, extra or usual, purpose) from error


def _import(module: str) -> Any:
    """Imports a module, even if torchvision was built for another PyTorch.

    The registry's torchvision is linked to CUDA. Beside a PyTorch without CUDA its C++ part does
    not load. Its Python part then describes operators that were never declared, and `import
    torchvision` fails with "operator torchvision::nms does not exist". So this function declares
    the two operators without an implementation. Nothing that classifies images calls them.
    """
    try:
        return importlib.import_module(module)
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error) or _declared:
            raise
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)
    return importlib.import_module(module)
