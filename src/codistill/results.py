"""What came out of a run, read off its history. The test set chooses nothing."""

import re
from typing import Any

from codistill.train import Record


def best_epoch(history: list[Record]) -> int | None:
    """The epoch in which one peer did best on the images held out; the first of several.

    None where none were held out. The test set has no part in it.
    """
    scores = [max(_peers(record, "val").values(), default=-1.0) for record in history]
    if not scores or scores[0] < 0:
        return None
    return 1 + scores.index(max(scores))


def preferred_peer(record: Record) -> int:
    """The peer that did best on the images held out; peer 0 where none were."""
    scores = _peers(record, "val")
    return max(scores, key=lambda k: scores[k]) if scores else 0


def classifiers_of(record: Record) -> list[str]:
    """The names of the classifiers that a record tells of."""
    return [key.removeprefix("test/top1/") for key in record if key.startswith("test/top1/")]


def summarise(history: list[Record]) -> dict[str, Any]:
    """Each classifier after the last epoch, and after the one that the held-out images chose."""
    last: dict[str, Any] = {}
    best: dict[str, Any] = {}
    chosen = best_epoch(history)
    for name in classifiers_of(history[-1]):
        last[name] = _of_classifier(history[-1], name)
        if chosen:
            best[name] = {"epoch": chosen} | _of_classifier(history[chosen - 1], name)
    speeds = sorted(record["images_per_second"] for record in history)
    return {
        "epochs": len(history),
        "last": last,
        "best_by_validation": best,
        "student": {"peer": preferred_peer(history[-1]), "best_epoch": chosen},
        "images_per_second": speeds[len(speeds) // 2],
        "seconds": sum(record["seconds"] for record in history),
    }


def _of_classifier(record: Record, name: str) -> dict[str, float]:
    return {
        f"{split}/{metric}": record[f"{split}/{metric}/{name}"]
        for split in ("val", "test")
        for metric in ("top1", "top5", "nll")
        if f"{split}/{metric}/{name}" in record
    }


def _peers(record: Record, split: str) -> dict[int, float]:
    found = {re.fullmatch(rf"{split}/top1/peer(\d+)", key): v for key, v in record.items()}
    return {int(match[1]): value for match, value in found.items() if match}
