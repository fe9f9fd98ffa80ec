"""What came out of a run, read off its history. The test set chooses nothing."""

from collections.abc import Iterable
from statistics import mean
from typing import Any

from codistill.training.record import Record


def best_epoch(history: list[Record], students: Iterable[str]) -> int | None:
    """The epoch in which one of the students did best on the images held out; the first of several.

    None where none were held out. The test set has no part in it.

    Args:
        history: one record per epoch.
        students: the classifiers of which one is kept, as `Method.students` names them.
    """
    students = list(students)
    scores = [max(_held_out(record, students).values(), default=-1.0) for record in history]
    if max(scores, default=-1.0) < 0:
        return None
    return 1 + scores.index(max(scores))


def preferred(record: Record, students: Iterable[str]) -> str:
    """The student that did best on the images held out; the first where none were."""
    students = list(students)
    scores = _held_out(record, students)
    return max(scores, key=lambda name: scores[name]) if scores else students[0]


def classifiers_of(record: Record) -> list[str]:
    """The names of the classifiers that a record tells of."""
    return [key.removeprefix("test/top1/") for key in record if key.startswith("test/top1/")]


def summarise(history: list[Record], students: Iterable[str]) -> dict[str, Any]:
    """Each classifier after the last epoch, and after the one that the held-out images chose."""
    students = list(students)
    last: dict[str, Any] = {}
    best: dict[str, Any] = {}
    chosen = best_epoch(history, students)
    for name in classifiers_of(history[-1]):
        last[name] = _of_classifier(history[-1], name)
        if chosen:
            best[name] = {"epoch": chosen} | _of_classifier(history[chosen - 1], name)
    speeds = sorted(record["images_per_second"] for record in history)
    return {
        "epochs": len(history),
        "last": last,
        "best_by_validation": best,
        "student": {
            "last": preferred(history[-1], students),
            "best": preferred(history[chosen - 1], students) if chosen else None,
            "best_epoch": chosen,
        },
        "images_per_second": speeds[len(speeds) // 2],
        "seconds": sum(record["seconds"] for record in history),
    }


def peers_of(summary: dict[str, Any]) -> list[str]:
    """The names of the peers in a summary."""
    return [n for n in summary["last"] if n.startswith("peer") and n[4:].isdigit()]


def own_classifier(summary: dict[str, Any], others: Iterable[str]) -> str | None:
    """The classifier that a method adds to its peers and their ensemble; None where it adds none.

    Of several the last, whatever their accuracy.

    Args:
        summary: as `summarise` makes it.
        others: classifiers that are not the method's own: those of which one is kept, and networks
            that it was given.
    """
    known = {*peers_of(summary), "ensemble", *others}
    return next((n for n in reversed(list(summary["last"])) if n not in known), None)


def accuracy(summary: dict[str, Any], epoch: str, classifier: str) -> float | None:
    """Test accuracy in % of a classifier, or of the "mean peer"; None where it was not measured.

    Args:
        summary: as `summarise` makes it.
        epoch: "last" or "best_by_validation".
        classifier: by name.
    """
    names = peers_of(summary) if classifier == "mean peer" else [classifier]
    measured = [summary[epoch][name]["test/top1"] for name in names if name in summary[epoch]]
    return mean(measured) if measured and len(measured) == len(names) else None


def headline(summary: dict[str, Any]) -> str:
    """What came out after the last epoch, in a line."""
    own = [name for name in summary["last"] if name not in peers_of(summary)]
    scores = [f"{name} {accuracy(summary, 'last', name):.2f}" for name in ("mean peer", *own)]
    return f"test top-1 {', '.join(scores)}"


def kept_top1(summary: dict[str, Any]) -> float:
    """Test accuracy in % of the student that is exported: by validation, else after the last."""
    student, which = summary["student"], "best_by_validation"
    name = student["best"]
    if name is None:
        name, which = student["last"], "last"
    return summary[which][name]["test/top1"]


def _of_classifier(record: Record, name: str) -> dict[str, float]:
    return {
        f"{split}/{metric}": record[f"{split}/{metric}/{name}"]
        for split in ("val", "test")
        for metric in ("top1", "top5", "nll")
        if f"{split}/{metric}/{name}" in record
    }


def _held_out(record: Record, students: list[str]) -> dict[str, float]:
    keys = {name: f"val/top1/{name}" for name in students}
    return {name: record[key] for name, key in keys.items() if key in record}
