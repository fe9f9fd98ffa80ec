"""Sends epochs to TensorBoard, W&B, MLflow, trackio and others while a run trains.

The loggers are those of Hugging Face accelerate (`accelerate.tracking`), one interface to nine of
them; nothing else of accelerate is used. RUN/loggers.json keeps the last epoch that each logger
got, so that a resumed run goes on in the same place, without a missing or repeated epoch. A logger
that fails gets nothing more until the run is resumed. It never stops a training.
"""

import contextlib
import importlib.util
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from codistill import files
from codistill.errors import InputError, MissingExtraError, did_you_mean
from codistill.importing import import_object, optional
from codistill.messages import note
from codistill.settings.config import Config, flatten
from codistill.training.record import Record

TOLD = "loggers.json"
_METHODS = ("store_init_configuration", "log", "finish")
_EXTRAS = ("tensorboard", "wandb", "mlflow", "trackio")  # those that codistill has an extra for
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""Settings of mlflow for a server that does not answer: its own hold a training up for minutes."""
_FAILURES = (Exception, SystemExit)  # some end the process where nobody is logged in
_OF_A_LAUNCHER = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def require_loggers(config: Config) -> None:
    """Raises InputError or MissingExtraError if a logger of a configuration is not available."""
    for name in _names(config):
        _made_by(name)


@contextlib.contextmanager
def logging_to(
    folder: Path, config: Config, history: Sequence[Record]
) -> Iterator[Callable[[Record], None]]:
    """Yields a function that sends a record to all loggers, after sending them the history.

    Args:
        folder: the run's folder.
        config: names the loggers; its settings are the run's hyperparameters.
        history: the records of the completed epochs.
    """
    loggers = [_Logger(name, folder, config) for name in _names(config)]
    for logger in loggers:
        logger.start()
        for record in history:
            logger.tell(record)

    def tell(record: Record) -> None:
        for logger in loggers:
            logger.tell(record)

    try:
        yield tell
    finally:
        for logger in loggers:
            logger.finish()


class _Logger:
    """One logger. When it fails it gets nothing more.

    Args:
        name: one of accelerate's names, or package.module:callable.
        folder: the run's folder.
        config: the run's settings.
    """

    def __init__(self, name: str, folder: Path, config: Config):
        self.name, self.folder, self.config = name, folder, config
        self.logger: Any = None
        self.id: str | None = None
        self.epoch = 0

    def start(self) -> None:
        """Starts the logger where an earlier process of the run left off."""
        with self._guarded():
            known = _read(self.folder / TOLD).get(self.name, {})
            self.id, self.epoch = known.get("id"), known.get("epoch", 0)
            begins = not known
            self.logger = self._begin()
            if begins:
                self.logger.store_init_configuration(_hyperparameters(self.config))
            self._keep()

    def tell(self, record: Record) -> None:
        """Sends an epoch, unless an earlier process has sent it."""
        epoch = int(record["epoch"])
        if self.logger is None or epoch <= self.epoch:
            return
        with self._guarded():
            before, self.epoch = self.epoch, epoch
            self._keep()  # first: a kill between the two leaves a gap, never an epoch told twice
            try:
                self.logger.log(dict(record), step=epoch)
            except _FAILURES:
                self.epoch = before
                self._keep()
                raise

    def finish(self) -> None:
        logger, self.logger = self.logger, None
        if logger is not None:
            with self._guarded():
                logger.finish()

    def _begin(self) -> Any:
        """The started logger, in the entry of this run."""
        make = _made_by(self.name)
        if ":" in self.name:
            logger = make(self.config.project, self.folder)
            if lacks := [name for name in _METHODS if not callable(getattr(logger, name, None))]:
                raise TypeError(f"what it returned has no {', '.join(lacks)}")
        else:
            _start_accelerate()
            logger = make(*self._arguments(), **self._options())
        if hasattr(logger, "start"):
            logger.start()
        if self.name == "mlflow":  # the others have been told their id
            self.id = logger.tracker.info.run_id
        return logger

    def _arguments(self) -> tuple[str | Path, ...]:
        if self.name == "tensorboard":
            return "tensorboard", self.folder  # RUN/tensorboard
        needs_folder = _made_by(self.name).requires_logging_directory
        return (self.config.project, self.folder) if needs_folder else (self.config.project,)

    def _options(self) -> dict[str, Any]:
        """Options that resume a run's entry, and name it after its folder."""
        name = self.folder.absolute().name
        if self.name == "tensorboard":
            return {"purge_step": self.epoch + 1}
        if self.name == "mlflow":
            for variable, value in _PATIENCE.items():
                os.environ.setdefault(variable, value)
            return {"run_id": self.id, "run_name": name}
        if self.name == "wandb":
            self.id = self.id or secrets.token_hex(4)
            return {"id": self.id, "name": name, "resume": "allow", "dir": str(self.folder)}
        if self.name == "trackio":  # which knows a run by its name
            self.id = self.id or f"{name}-{secrets.token_hex(4)}"
            # Of accelerate's store_init_configuration trackio keeps nothing.
            settings = _hyperparameters(self.config)
            return {"name": self.id, "resume": "allow", "config": settings}
        return {}

    def _keep(self) -> None:
        path = self.folder / TOLD
        files.write_json(path, _read(path) | {self.name: {"id": self.id, "epoch": self.epoch}})

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except _FAILURES as error:  # whatever it is: it is not worth a training
            logger, self.logger = self.logger, None
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            note(
                f"logger {self.name} fails ({why}): the training goes on without it, and codistill "
                f"train --resume {self.folder} --loggers {self.name} will tell it what it missed"
            )
            if logger is not None:  # what it has been told may still be in its memory
                with contextlib.suppress(*_FAILURES):
                    logger.finish()


def _start_accelerate() -> None:
    """Sets up accelerate's messages, as if this were the only process.

    Where a launcher such as torchrun has set LOCAL_RANK, accelerate would wait for other processes
    of the training. There are none: every run is a process by itself.
    """
    from accelerate import PartialState

    hidden = {name: os.environ.pop(name) for name in _OF_A_LAUNCHER if name in os.environ}
    try:
        PartialState()
    finally:
        os.environ.update(hidden)


def _names(config: Config) -> list[str]:
    """The names of the loggers in a configuration, each once."""
    if config.loggers == "none":
        return []
    if config.loggers == "auto":
        there = all(importlib.util.find_spec(name) for name in ("tensorboard", "accelerate"))
        return ["tensorboard"] if there else []
    return list(dict.fromkeys(name.strip() for name in config.loggers.split(",")))


def _made_by(name: str) -> Any:
    """The class or function that makes a logger, by name."""
    if ":" in name:
        made_by = import_object(name)
        if not callable(made_by):
            raise InputError(f"loggers: {name!r} cannot be called: give a class or a function")
        return made_by
    purpose = f"logger {name!r}"
    optional("accelerate", purpose, name if name in _EXTRAS else "")
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


def _hyperparameters(config: Config) -> dict[str, bool | int | float | str]:
    """Every setting, by names such as data.pad; other values than numbers as text."""
    return {
        key: value if isinstance(value, bool | int | float | str) else str(value)
        for key, value in flatten(asdict(config))
    }


def _read(path: Path) -> dict[str, Any]:
    return files.read_json(path) if os.path.exists(path) else {}
