"""A run that is about to begin: its settings checked, its parts built, its first files written."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from codistill import files
from codistill.methods.length import scaling_notes
from codistill.methods.method import Method
from codistill.methods.teacher import notes_on_teacher
from codistill.runs.folder import CONFIG, START, copy_name, refuse_occupied
from codistill.runs.loggers import SENT, require_loggers
from codistill.runs.manifest import Manifest
from codistill.settings.build_data import Data, build_data
from codistill.settings.build_method import (
    build_with_student,
    length_of,
    network_files,
    require_trainable,
    resolve,
)
from codistill.settings.config import Config
from codistill.tensor_files import write_weights
from codistill.training.device import bf16_notes, use_device


class NewRun(NamedTuple):
    """All that a run begins with.

    Attributes:
        config: settings, resolved.
        method: the peers and how they learn, with their first weights.
        data: batches, with what is to be said of them and of the settings.
        manifest: the run's facts.
    """

    config: Config
    method: Method
    data: Data
    manifest: Manifest

    def write(self, path: Path) -> None:
        """Writes the files that a run begins with, config.yaml last."""
        self.config.to_yaml()  # raises before anything is written
        refuse_occupied(path)
        for old in (path / START, path / SENT, *path.glob(copy_name("*"))):
            old.unlink(missing_ok=True)  # of a run that never began
        self.manifest.write(path)
        for option, file in network_files(self.config.method).items():
            files.write_bytes(path / copy_name(option), file.read_bytes())
        if self.config.pretrained or self.config.weights:
            write_weights(path / START, self.method.state_dict(), {})
        self.config.write(path / CONFIG)


def prepare(config: Config) -> NewRun:
    """Builds the parts of a run, and checks that they fit each other. Writes nothing.

    Raises:
        InputError: they do not.
    """
    require_loggers(config)
    device = use_device(config.device, config.threads)
    data = build_data(config, device)
    given = config.method
    asked, config = config, resolve(config, data)
    classes = data.classes
    method, config = build_with_student(config, len(classes), data.image_size, classes)
    notes = [*scaling_notes(method, given, length_of(config, data))]
    notes += bf16_notes(device, config.precision)
    for file in network_files(config.method).values():
        notes += notes_on_teacher(file, data.classes, data.normalisation, data.image_size)
    taken = (*data.taken, *_fitted(asked, config, data))
    data = dataclasses.replace(data, notes=(*data.notes, *notes), taken=taken)
    require_trainable(method, config, data)
    return NewRun(config, method, data, Manifest.of(config, method, data))


def _fitted(asked: Config, resolved: Config, data: Data) -> Iterator[str]:
    """A line on the settings that were chosen to suit the number of images."""
    found = {"epochs": resolved.epochs, "batch_size": resolved.batch_size}
    chosen = [f"{name} {n}" for name, n in found.items() if not getattr(asked, name)]
    if chosen:
        yield f"{' and '.join(chosen)}: to suit {data.train.images:,} images to train on"
