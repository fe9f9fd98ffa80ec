"""Objects named as `package.module:name`: networks and methods that are kept elsewhere."""

import importlib
from typing import Any

from codistill.errors import InputError


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
