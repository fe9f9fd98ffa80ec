"""A classifier of a run as a folder that others load without codistill."""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codistill import files
from codistill.errors import InputError
from codistill.runs.classifier import SHIPS, open_classifier
from codistill.runs.exporting.card import card_of, config_of
from codistill.runs.exporting.formats import (
    ExportPrecision,
    Form,
    read_model,
    refuse_unfit,
    write_model,
)
from codistill.runs.exporting.read import CONFIG
from codistill.runs.exporting.verify import IMAGES, Verified, verify
from codistill.runs.finished import load_result
from codistill.runs.run import Run
from codistill.runs.student import Student

CARD = "README.md"
_CALIBRATION = 256  # training images that int8 is calibrated on


def export(
    run: Run,
    form: Form,
    of: str = SHIPS,
    precision: ExportPrecision = "fp32",
    out: Path | None = None,
) -> tuple[Path, Student, Verified]:
    """Writes a classifier, config.json and a card, and compares it with the network.

    Args:
        run: a finished run, opened on the CPU.
        form: what is written.
        of: the classifier; see `open_classifier`.
        precision: numbers of the weights, and in ONNX and pt2 of the computation.
        out: a folder that is not there yet. Default: in the run's folder.

    Returns:
        The folder; the network that was exported; what the export loses.

    Raises:
        InputError: the form does not suit the network, the folder is there already, or the export
            does not compute what the network does. Nothing is then written.
    """
    result = load_result(run.path)
    student = open_classifier(run.path, of, "cpu", trust_code=True)  # as the run is open
    refuse_unfit(student, form, precision)
    out = out or run.path / "_".join(
        [
            "export",
            form,
            *([of] if of != SHIPS else []),
            *([precision] if precision != "fp32" else []),
        ]
    )
    _refuse_taken(out)
    data = run.data()
    calibration = _few(data.train) if precision == "int8" else []
    with _written(out) as folder:
        write_model(folder, student, form, precision, calibration)
        config = config_of(student, result, form, precision)
        files.write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
        exported = read_model(folder, student.about, form)
        places = torch.linspace(0, len(data.test.split) - 1, min(IMAGES, len(data.test.split)))
        test = data.test.take(places.long())
        verified = verify(student.network, exported, test, precision == "fp32")
        card = card_of(student, result, form, precision, verified)
        files.write_text(folder / CARD, card)
        shutil.rmtree(folder / "__pycache__", ignore_errors=True)  # of model.py
    return out, student, verified


def _few(train: Any) -> list[Tensor]:
    """Normalised training images in batches, as a training sees them."""
    found: list[Tensor] = []
    for batch in train:
        found.append(batch.views[0].contiguous())
        if sum(map(len, found)) >= _CALIBRATION:
            break
    return found


@contextlib.contextmanager
def _written(out: Path) -> Iterator[Path]:
    """Gives a new folder beside `out`, which gets that name when the block ends, or is removed."""
    if not out.parent.is_dir():
        raise InputError(f"there is no folder {out.parent}")
    try:
        folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.", suffix=".tmp"))
    except OSError as error:
        raise InputError(f"{out} cannot be made: {error.strerror}") from error
    try:
        yield folder
        os.chmod(folder, 0o755)
        _refuse_taken(out)  # by another export meanwhile
        os.rename(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _refuse_taken(out: Path) -> None:
    """Raises InputError if there is something at this place already."""
    if os.path.lexists(out):
        raise InputError(f"{out} is there already: remove it, or give another folder by --out")
