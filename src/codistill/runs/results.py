"""The scores of a run, computed from its history. The test set chooses nothing."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Literal

from codistill import files
from codistill.checks import make
from codistill.errors import InputError
from codistill.runs.history import digest_of
from codistill.training.record import Record

RESULT = "result.json"

Metrics = dict[str, float | int]
"""The metrics of a classifier: "test/top1" and so on, and "epoch" if validation chose one."""


@dataclass(frozen=True)
class Kept:
    """The exported classifier.

    Attributes:
        last: its name after the last epoch.
        best: its name after the epoch that the held-out images chose; None where there were none.
        best_epoch: that epoch, from 1.
    """

    last: str
    best: str | None
    best_epoch: int | None


@dataclass(frozen=True)
class RunScores:
    """The scores of a finished run, as result.json has them.

    Attributes:
        epochs: number of epochs.
        last: metrics of each classifier after the last epoch.
        best_by_validation: metrics after the epoch that the held-out images chose; none without
            such images.
        student: the exported classifier.
        images_per_second: median over the epochs.
        seconds: time of all training steps.
        history: `digest_of` the history; empty in runs of early versions.
    """

    epochs: int
    last: dict[str, Metrics]
    best_by_validation: dict[str, Metrics]
    student: Kept
    images_per_second: float
    seconds: float
    history: str = ""

    def __post_init__(self) -> None:
        kept, metrics = self._kept()
        if "test/top1" not in metrics:
            raise InputError(f"it lacks the accuracy of {kept!r}, which is exported")

    @classmethod
    def of(cls, history: list[Record], students: Iterable[str]) -> "RunScores":
        """Each classifier after the last epoch, and after the one that held-out images chose.

        Args:
            history: one record per epoch.
            students: the classifiers of which one is kept, as `Method.students` names them.
        """
        students = list(students)
        chosen = best_epoch(history, students)
        best = history[chosen - 1] if chosen else {}
        speeds = sorted(record["images_per_second"] for record in history)
        return cls(
            epochs=len(history),
            last={n: _of_classifier(history[-1], n) for n in classifiers_of(history[-1])},
            best_by_validation={
                n: {"epoch": chosen or 0} | _of_classifier(best, n) for n in classifiers_of(best)
            },
            student=Kept(
                last=preferred(history[-1], students),
                best=preferred(best, students) if chosen else None,
                best_epoch=chosen,
            ),
            images_per_second=speeds[len(speeds) // 2],
            seconds=sum(record["seconds"] for record in history),
            history=digest_of(history),
        )

    @classmethod
    def read(cls, run: Path) -> "RunScores":
        """The scores of a finished run, by its folder."""
        return make(cls, files.read_json(run / RESULT), run / RESULT)

    def write(self, run: Path) -> None:
        files.write_json(run / RESULT, asdict(self))

    @property
    def peers(self) -> list[str]:
        """The names of the peers."""
        return [n for n in self.last if n.startswith("peer") and n[4:].isdigit()]

    @property
    def kept_top1(self) -> float:
        """Test accuracy in % of the exported student: by validation, else after the last epoch."""
        return self._kept()[1]["test/top1"]

    def own_classifier(self, others: Iterable[str]) -> str | None:
        """The classifier that a method adds to its peers and their ensemble; None without one.

        If there are several it is the last, whatever their accuracy.

        Args:
            others: classifiers that are not the method's own: those of which one is kept, and
                networks that it was given.
        """
        known = {*self.peers, "ensemble", *others}
        return next((n for n in reversed(list(self.last)) if n not in known), None)

    def accuracy(
        self, epoch: Literal["last", "best_by_validation"], classifier: str
    ) -> float | None:
        """Test accuracy in % of a classifier, or of the "mean peer"; None if it was not measured.

        Args:
            epoch: the last one, or the one that the held-out images chose.
            classifier: the name of one of `last`.
        """
        metrics = self.last if epoch == "last" else self.best_by_validation
        names = self.peers if classifier == "mean peer" else [classifier]
        measured = [metrics[name]["test/top1"] for name in names if name in metrics]
        return mean(measured) if measured and len(measured) == len(names) else None

    def headline(self) -> str:
        """The accuracies after the last epoch, in a line."""
        own = [name for name in self.last if name not in self.peers]
        scores = [f"{name} {self.accuracy('last', name):.2f}" for name in ("mean peer", *own)]
        return f"test top-1 {', '.join(scores)}"

    def _kept(self) -> tuple[str, Metrics]:
        if self.student.best is None:
            return self.student.last, self.last.get(self.student.last, {})
        return self.student.best, self.best_by_validation.get(self.student.best, {})


def best_epoch(history: list[Record], students: Iterable[str]) -> int | None:
    """The epoch in which a student did best on the held-out images; the first of several.

    None if no images are held out. The test set has no part in it.

    Args:
        history: one record per epoch.
        students: the classifiers of which one is kept, as `Method.students` names them.
    """
    students = list(students)
    scores = [max(_held_out(record, students).values(), default=-1.0) for record in history]
    if max(scores, default=-1.0) < 0:
        return None
    return 1 + scores.index(max(scores))


def out_of_patience(history: list[Record], students: Iterable[str], patience: int | None) -> bool:
    """Whether so many evaluations since the best one were no better, and training ends."""
    students = list(students)
    if patience is None or not (best := best_epoch(history, students)):
        return False
    return sum(1 for record in history[best:] if _held_out(record, students)) >= patience


def preferred(record: Record, students: Iterable[str]) -> str:
    """The student that did best on the held-out images; without such images the first."""
    students = list(students)
    scores = _held_out(record, students)
    return max(scores, key=lambda name: scores[name]) if scores else students[0]


def classifiers_of(record: Record) -> list[str]:
    """The names of the classifiers in a record."""
    return [key.removeprefix("test/top1/") for key in record if key.startswith("test/top1/")]


def _of_classifier(record: Record, name: str) -> Metrics:
    return {
        f"{split}/{metric}": record[f"{split}/{metric}/{name}"]
        for split in ("val", "test")
        for metric in ("top1", "top5", "nll")
        if f"{split}/{metric}/{name}" in record
    }


def _held_out(record: Record, students: list[str]) -> dict[str, float]:
    keys = {name: f"val/top1/{name}" for name in students}
    return {name: record[key] for name, key in keys.items() if key in record}
