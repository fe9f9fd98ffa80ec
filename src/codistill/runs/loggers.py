"""Sends epochs to TensorBoard, W&B, MLflow, trackio and others while a run trains.

The loggers are those of Hugging Face accelerate (`accelerate.tracking`), which has one interface to
nine of them; we use nothing else of it. RUN/loggers.json keeps the last epoch that each logger got.
A resumed run therefore continues at the same place, without a missing or repeated epoch. A logger
that fails gets nothing more until the run is resumed. It never stops a training.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from codistill import files
from codistill.messages import note
from codistill.runs.start_logger import (
    hyperparameters,
    logger_maker,
    logger_names,
    start_logger,
)
from codistill.settings.config import Config
from codistill.training.record import Record

SENT = "loggers.json"
_FAILURES = (Exception, SystemExit)  # some end the process where nobody is logged in


def require_loggers(config: Config) -> None:
    """Raises InputError or MissingExtraError if a logger of a configuration is not available."""
    for name in logger_names(config):
        logger_maker(name)


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
    loggers = [_Logger(name, folder, config) for name in logger_names(config)]
    for logger in loggers:
        logger.start()
        for record in history:
            logger.send(record)

    def send(record: Record) -> None:
        for logger in loggers:
            logger.send(record)

    try:
        yield send
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
            known = _read(self.folder / SENT).get(self.name, {})
            self.id, self.epoch = known.get("id"), known.get("epoch", 0)
            begins = not known
            place = self.folder, self.config, self.id, self.epoch
            self.logger, self.id = start_logger(self.name, *place)
            if begins:
                self.logger.store_init_configuration(hyperparameters(self.config))
            self._keep()

    def send(self, record: Record) -> None:
        """Sends an epoch, unless an earlier process has sent it."""
        epoch = int(record["epoch"])
        if self.logger is None or epoch <= self.epoch:
            return
        with self._guarded():
            before, self.epoch = self.epoch, epoch
            self._keep()  # first: a kill between the two leaves a gap, never an epoch sent twice
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

    def _keep(self) -> None:
        path = self.folder / SENT
        files.write_json(path, _read(path) | {self.name: {"id": self.id, "epoch": self.epoch}})

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except _FAILURES as error:  # whatever it is: it is not worth a training
            logger, self.logger = self.logger, None
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            resume = f"codistill train --resume {self.folder} --loggers {self.name}"
            note(
                f"logger {self.name} fails ({why}): the training continues without it, and "
                f"{resume} will send it the epochs that it missed"
            )
            if logger is not None:  # epochs may still be in its memory
                with contextlib.suppress(*_FAILURES):
                    logger.finish()


def _read(path: Path) -> dict[str, Any]:
    return files.read_json(path) if os.path.exists(path) else {}
