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
from codistill.training.fit import ALWAYS_EVALUATED
from codistill.training.record import Record

RESULT = "result.json"

ENOUGH_TO_CHOOSE = 100
"""Held-out images from which on they choose the epoch of the network that ships.

With 100 images one image is a point of accuracy, and an accuracy of 80 % has a standard error of 4
points. With fewer, the best of many epochs is mostly the luckiest, often an early one. The learning
rate is lowest at the end, so the last epoch is the better guess then.
"""
EPOCH_THAT_SHIPS = (
    f"after the epoch that {ENOUGH_TO_CHOOSE} or more held-out images chose, else the last epoch"
)

Epoch = Literal["last", "last_five", "best_by_validation"]
"""Whose metrics: the last epoch's, their mean over the last five, or those of the chosen epoch."""
_MANY_EPOCHS = 10  # the last five of fewer are no end of a training

Metrics = dict[str, float | int]
"""The metrics of a classifier: "test/top1" and so on, and "epoch" if validation chose one."""


@dataclass(frozen=True)
class Kept:
    """The network that ships as student.safetensors.

    Attributes:
        last: name of the classifier that is preferred after the last epoch.
        best: name of the one after the epoch that the held-out images chose; None where there were
            none.
        best_epoch: that epoch, from 1.
        epoch: epoch of the network that ships, from 1: `best_epoch` with `ENOUGH_TO_CHOOSE`
            held-out images, else the last. None in runs of early versions.
    """

    last: str
    best: str | None
    best_epoch: int | None
    epoch: int | None = None


@dataclass(frozen=True)
class RunScores:
    """The scores of a finished run, as result.json has them.

    Attributes:
        epochs: number of epochs.
        last: metrics of each classifier after the last epoch.
        best_by_validation: metrics after the epoch that the held-out images chose; none without
            such images.
        student: the network that ships.
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
        if "test/top1" not in self._kept():
            raise InputError(f"it lacks the accuracy of {self.kept[0]!r}, which is exported")

    @classmethod
    def of(cls, history: list[Record], students: Iterable[str], held_out: int) -> "RunScores":
        """Each classifier after the last epoch, and after the one that held-out images chose.

        Args:
            history: one record per epoch.
            students: the classifiers of which one is kept, as `names_kept` returns them.
            held_out: number of held-out images.
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
                epoch=chosen if chosen and held_out >= ENOUGH_TO_CHOOSE else len(history),
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
    def kept(self) -> tuple[str, Literal["last", "best"]]:
        """The name of the classifier that ships, and the weights of the run that it is from.

        In runs of early versions these are the best weights by validation, where there are any.
        """
        s = self.student
        if s.best is None or s.epoch == self.epochs or s.epoch not in (None, s.best_epoch):
            return s.last, "last"
        return s.best, "best"

    @property
    def kept_top1(self) -> float:
        """Test accuracy in % of the network that ships."""
        return self._kept()["test/top1"]

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
        return self.accuracy_in(metrics, classifier)

    def accuracy_in(self, metrics: dict[str, Metrics], classifier: str) -> float | None:
        """The same of metrics by classifier."""
        names = self.peers if classifier == "mean peer" else [classifier]
        measured = [metrics[name]["test/top1"] for name in names if name in metrics]
        return mean(measured) if measured and len(measured) == len(names) else None

    def headline(self) -> str:
        """The accuracies after the last epoch, in a line."""
        own = [name for name in self.last if name not in self.peers]
        scores = [f"{name} {self.accuracy('last', name):.2f}" for name in ("mean peer", *own)]
        return f"test top-1 {', '.join(scores)}"

    def _kept(self) -> Metrics:
        name, weights = self.kept
        return (self.last if weights == "last" else self.best_by_validation).get(name, {})


def last_five(history: list[Record]) -> dict[str, Metrics]:
    """The mean metrics of each classifier over the last five epochs, which vary less than one.

    There are none of fewer than ten epochs, and none if some of the five were not evaluated, as
    where patience ended a training that evaluates every tenth epoch.

    Args:
        history: one record per epoch.
    """
    if len(history) < _MANY_EPOCHS:
        return {}
    end = history[-ALWAYS_EVALUATED:]
    names = classifiers_of(end[-1])
    if any(classifiers_of(record) != names for record in end):
        return {}
    found = {}
    for name in names:
        each = [_of_classifier(record, name) for record in end]
        measured = [metric for metric in each[0] if all(metric in of for of in each)]
        found[name] = {metric: mean(of[metric] for of in each) for metric in measured}
    return found


def best_epoch(history: list[Record], students: Iterable[str]) -> int | None:
    """The epoch in which a student did best on the held-out images; the first of several.

    None if no images are held out. The test set has no part in it.

    Args:
        history: one record per epoch.
        students: the classifiers of which one is kept, as `names_kept` returns them.
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
