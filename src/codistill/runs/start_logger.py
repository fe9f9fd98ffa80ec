"""Starts a logger of accelerate, or one of your own, in the entry of a run."""

import importlib.util
import os
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import Any

from codistill.errors import InputError, MissingExtraError, did_you_mean
from codistill.importing import import_object, optional
from codistill.settings.config import Config, flatten

FOLDERS = {"tensorboard", "wandb"}
"""Folders that loggers make in the folder of a run."""
_METHODS = ("store_init_configuration", "log", "finish")
_EXTRAS = ("tensorboard", "wandb", "mlflow", "trackio")  # those that codistill has an extra for
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""Limits for an mlflow server that does not answer: mlflow's own delay a training by minutes."""
_OF_A_LAUNCHER = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def logger_names(config: Config) -> list[str]:
    """The names of the loggers in a configuration, each once."""
    if config.loggers == "none":
        return []
    if config.loggers == "auto":
        there = all(importlib.util.find_spec(name) for name in ("tensorboard", "accelerate"))
        return ["tensorboard"] if there else []
    return list(dict.fromkeys(name.strip() for name in config.loggers.split(",")))


def logger_maker(name: str) -> Any:
    """The class or function that makes a logger, by name."""
    if ":" in name:
        made_by = import_object(name)
        if not callable(made_by):
            raise InputError(f"loggers: {name!r} cannot be called: give a class or a function")
        return made_by
    purpose = f"logger {name!r}"
    optional("accelerate", purpose, name if name in _EXTRAS else "")
    # accelerate has no other way from a name to its class.
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    if name not in LOGGER_TYPE_TO_CLASS:
        raise InputError(
            f"loggers: {name!r} is not known: {did_you_mean(name, LOGGER_TYPE_TO_CLASS)}; "
            "your own is package.module:callable"
        )
    if name not in {str(known) for known in get_available_trackers()}:
        if name in _EXTRAS:
            raise MissingExtraError(name, name, purpose)
        raise InputError(f"{purpose} needs its package: pip install {name}")
    return LOGGER_TYPE_TO_CLASS[name]


def start_logger(
    name: str, folder: Path, config: Config, entry: str | None, epoch: int
) -> tuple[Any, str | None]:
    """A started logger, and the identifier of the run's entry in it, if it has one.

    Args:
        name: one of accelerate's names, or package.module:callable.
        folder: the run's folder.
        config: the run's settings.
        entry: identifier of the entry to resume; None for a new one.
        epoch: last epoch in the entry, from 1; 0 in a new one.
    """
    make = logger_maker(name)
    if ":" in name:
        logger = make(config.project, folder)
        if lacks := [method for method in _METHODS if not callable(getattr(logger, method, None))]:
            raise TypeError(f"what it returned has no {', '.join(lacks)}")
    else:
        _start_accelerate()
        if name in ("wandb", "trackio") and entry is None:  # trackio knows a run by its name
            begin = f"{folder.absolute().name}-" if name == "trackio" else ""
            entry = f"{begin}{secrets.token_hex(4)}"
        places: tuple[str | Path, ...] = (config.project,)
        if name == "tensorboard":
            places = "tensorboard", folder  # RUN/tensorboard
        elif make.requires_logging_directory:
            places = config.project, folder
        logger = make(*places, **_options(name, folder, config, entry, epoch))
    if hasattr(logger, "start"):
        logger.start()
    if name == "mlflow":  # the others got their identifier
        entry = logger.tracker.info.run_id
    return logger, entry


def hyperparameters(config: Config) -> dict[str, bool | int | float | str]:
    """Every setting, by names such as data.pad. Values that are no numbers become text."""
    return {
        key: value if isinstance(value, bool | int | float | str) else str(value)
        for key, value in flatten(asdict(config))
    }


def _options(
    name: str, folder: Path, config: Config, entry: str | None, epoch: int
) -> dict[str, Any]:
    """The options with which a logger resumes a run's entry and names it after its folder."""
    title = folder.absolute().name
    if name == "tensorboard":
        return {"purge_step": epoch + 1}
    if name == "mlflow":
        for variable, value in _PATIENCE.items():
            os.environ.setdefault(variable, value)
        return {"run_id": entry, "run_name": title}
    if name == "wandb":
        return {"id": entry, "name": title, "resume": "allow", "dir": str(folder)}
    if name == "trackio":  # it keeps nothing of accelerate's store_init_configuration
        return {"name": entry, "resume": "allow", "config": hyperparameters(config)}
    return {}


def _start_accelerate() -> None:
    """Sets up accelerate's messages, as if this were the only process.

    If a launcher such as torchrun has set LOCAL_RANK, accelerate waits for other processes of the
    training. They log nothing: the first one does.
    """
    from accelerate import PartialState

    hidden = {name: os.environ.pop(name) for name in _OF_A_LAUNCHER if name in os.environ}
    try:
        PartialState()
    finally:
        os.environ.update(hidden)
