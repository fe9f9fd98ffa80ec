"""The runs of a comparison: their folders, their progress, and whether the folders fit the file."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from codistill.comparing.comparison import Comparison, Row
from codistill.comparing.sections import Problems
from codistill.errors import InputError, MissingExtraError
from codistill.messages import note
from codistill.methods.length import scaling_notes
from codistill.runs.finished import differences_from
from codistill.runs.folder import read_config
from codistill.runs.history import epochs_in
from codistill.runs.loggers import require_loggers
from codistill.runs.remarks import remarks
from codistill.runs.results import RESULT
from codistill.settings.build_data import Data, build_data
from codistill.settings.build_method import (
    build_with_student,
    length_of,
    require_trainable,
    resolve,
)
from codistill.settings.config import Config


@dataclass(frozen=True)
class PlannedRun:
    """One run of a comparison. Its progress is read from its folder, and stored nowhere else.

    Attributes:
        row: the setting.
        seed: the seed.
        folder: the comparison's folder.
        config: the settings.
    """

    row: Row
    seed: int
    folder: Path
    config: Config

    @property
    def name(self) -> str:
        return self.row.folder(self.seed)

    @property
    def path(self) -> Path:
        """The folder of the run."""
        return self.folder / "runs" / self.name

    @property
    def recipe(self) -> Path:
        """The file of the settings with which it begins."""
        return self.folder / "recipes" / f"{self.name}.yaml"

    @property
    def log(self) -> Path:
        """The file of its processes' output."""
        return self.folder / "logs" / f"{self.name}.log"

    def begun(self) -> bool:
        return (self.path / "config.yaml").exists()

    def finished(self) -> bool:
        return (self.path / RESULT).exists()

    def epochs_done(self) -> int:
        return epochs_in(self.path)


def plan_runs(comparison: Comparison, folder: Path, check: bool = True) -> list[PlannedRun]:
    """All runs, seed by seed; the baselines of a seed first.

    Args:
        comparison: the comparison.
        folder: the comparison's folder.
        check: build the data and every method, and write out every default; otherwise only the
            folders are checked.

    Raises:
        InputError: lists all problems: missing data, methods that do not take their options or
            networks, folders that hold another run.
    """
    problems = Problems(comparison.name)
    rows, fingerprint = comparison.rows, None
    if check:
        problems.of(require_loggers, rows[0].config)  # the same for all rows
        rows, fingerprint = _checked_rows(comparison, problems)
    runs = [
        PlannedRun(row, seed, folder, dataclasses.replace(row.config, seed=seed))
        for seed in comparison.seeds
        for row in rows
    ]
    for run in runs:
        if run.begun():
            problems.of(_belongs, run, fingerprint)
    problems.raise_any()
    return runs


def strangers(runs: Iterable[PlannedRun], folder: Path) -> list[str]:
    """The names of runs in a comparison's folder that are not part of the comparison."""
    known = {run.name for run in runs}
    there = (folder / "runs").iterdir() if (folder / "runs").is_dir() else ()
    return sorted(path.name for path in there if path.name not in known)


def _checked_rows(comparison: Comparison, problems: Problems) -> tuple[list[Row], str]:
    """The rows whose methods can be built, and the fingerprint of the images of all.

    A problem of several rows is noted once. A sweep may change how the images are read.
    """
    rows, of_settings = [], dict[str, Data]()
    failed: dict[str, list[str]] = defaultdict(list)
    for row in comparison.rows:
        c = row.config
        key = repr((c.data, c.batch_size, c.limit_steps))
        data = of_settings.get(key) or build_data(c, torch.device("cpu"))
        of_settings[key] = data
        try:
            rows.append(_checked(row, data))
        except (InputError, MissingExtraError, OSError) as error:
            failed[str(error)].append(row.label)
    for problem, labels in failed.items():
        problems.add(f"methods: {', '.join(labels)}: {problem}")
    if comparison.sweep and "val" not in data.evaluate_on:
        problems.add(
            "sweep: held-out images choose the values, and none are held out: give "
            "data.val_fraction 0.1, or another number above 0"
        )
    return rows, data.fingerprint


def _checked(row: Row, data: Data) -> Row:
    """The row with every default written out, after a check that its method can be built."""
    config = dataclasses.replace(resolve(row.config, data), threads=row.config.threads)
    size, classes = data.image_size, data.classes
    method, config = build_with_student(config, len(classes), size, classes)
    require_trainable(method, config, data)
    scaled = scaling_notes(method, row.config.method, length_of(config, data))
    for remark in (*scaled, *remarks(method, config)):
        note(f"{row.label}: {remark}")
    return dataclasses.replace(row, config=config)


def _belongs(run: PlannedRun, fingerprint: str | None) -> None:
    """Raises InputError if a folder holds another run than the comparison asks for."""
    asked = run.config
    if fingerprint is None:  # what depends on the data was not found out
        there = read_config(run.path)
        asked = dataclasses.replace(
            asked,
            batch_size=asked.batch_size or there.batch_size,
            epochs=asked.epochs or there.epochs,
        )
        if asked.student and sorted(asked.networks()) == sorted(there.networks()):
            asked = dataclasses.replace(asked, network=there.network)
    different = differences_from(run.path, asked, fingerprint)
    if different:
        raise InputError(
            f"{run.path} does not belong to it any more, it was made with {', '.join(different)}: "
            "put the file back, rename the method, move the folder away, or give another --out"
        )
