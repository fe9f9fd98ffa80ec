"""Which methods helped: each run minus the networks alone of the same seed, with statistics.

The two runs of a pair have the same first weights, order of images and augmentation. Only seeds
that both sides have make pairs.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from codistill.analysis.paired import SIGNIFICANT, Paired, holm, paired, smallest_shown
from codistill.runs.finished import Result

Epoch = Literal["last", "best_by_validation"]
EPOCHS: tuple[Epoch, ...] = ("last", "best_by_validation")

BySeed = Mapping[int, Result]


@dataclass(frozen=True)
class Difference:
    """A classifier of a method against one of the networks alone.

    Attributes:
        label: label of the method's row.
        classifier: a classifier of the method, or "mean peer".
        against: a classifier of the networks alone, or "mean peer".
        kind: kind of comparison; p values are corrected within a kind.
        epoch: the last epoch, or the one that the held-out images chose.
        seeds: seeds of the pairs.
        statistics: statistics of the differences in top-1 accuracy, in percentage points.
        p: p value of the statistics after Holm's correction.
        comparisons: number of comparisons of this kind.
    """

    label: str
    classifier: str
    against: str
    kind: Literal["mean peer", "peer", "ensemble", "its own"]
    epoch: Epoch
    seeds: tuple[int, ...]
    statistics: Paired
    p: float | None = None
    comparisons: int = 0

    @property
    def verdict(self) -> str:
        """helped, hurt or undecided; "-" if nothing could be tested."""
        if self.p is None:
            return "-"
        if self.p >= SIGNIFICANT:
            return "undecided"
        return "helped" if self.statistics.mean > 0 else "hurt"


def differences(results: Mapping[str, BySeed], baselines: Mapping[str, str]) -> list[Difference]:
    """Every comparison of a table, corrected for their number.

    Args:
        results: finished runs of every row, by seed.
        baselines: for each row, the row that it is compared with; a baseline has itself.
    """
    found = [
        difference
        for label, runs in results.items()
        if baselines[label] != label
        for epoch in EPOCHS
        for difference in _of_row(label, runs, results.get(baselines[label], {}), epoch)
    ]
    kinds: dict[tuple[str, Epoch], list[int]] = defaultdict(list)
    for i, difference in enumerate(found):
        kinds[difference.kind, difference.epoch].append(i)
    for places in kinds.values():
        corrected = holm([found[i].statistics.p for i in places])
        count = sum(p is not None for p in corrected)
        for i, p in zip(places, corrected, strict=True):
            found[i] = replace(found[i], p=p, comparisons=count)
    return found


def conclusion(found: Sequence[Difference], test_images: int | None = None) -> str:
    """What a comparison shows of the mean peer after the last epoch, in two or three sentences.

    Args:
        found: all comparisons, corrected.
        test_images: number of images that were tested on, if it is known.
    """
    of_peers = [d for d in found if d.kind == "mean peer" and d.epoch == "last"]
    said = []
    for verdict in ("helped", "hurt"):
        those = [f"{d.label} ({d.statistics.mean:+.2f})" for d in of_peers if d.verdict == verdict]
        if those:
            said.append(f"{', '.join(those)} {verdict} the peers")
    shown = " and ".join(said) if said else "No method is shown to help or to hurt the peers"
    others = [d.label for d in of_peers if d.verdict not in ("helped", "hurt")]
    if said and others:
        shown += f"; of {', '.join(others)} neither is shown"
    if (smallest := smallest_shown([d.statistics for d in of_peers])) is None:
        return f"{shown}. One seed, or seeds without spread, cannot show a difference."
    n = min(d.statistics.n for d in of_peers if d.statistics.n > 1)
    images = f" on {test_images:,} test images" if test_images else ""
    return (
        f"{shown}. With {n} seeds{images}, a mean difference below about {smallest:.1f} points "
        "could not have been shown."
    )


def missing_seeds(results: Mapping[str, BySeed], seeds: Sequence[int]) -> list[str]:
    """A note on each row that does not have all seeds."""
    notes = []
    for label, runs in results.items():
        absent = [str(seed) for seed in seeds if seed not in runs]
        if absent:
            plural = "s" if len(absent) > 1 else ""
            notes.append(f"{label}: seed{plural} {', '.join(absent)} missing")
    return notes


def _of_row(label: str, runs: BySeed, alone: BySeed, epoch: Epoch) -> Iterator[Difference]:
    seeds = tuple(sorted(runs.keys() & alone.keys()))
    if not seeds:
        return
    first, bar = runs[seeds[0]], alone[seeds[0]]
    for classifier in ["mean peer", *first.scores.last]:
        if classifier in first.manifest.networks:  # a teacher that the method was given
            continue
        kind, against = _opponent(classifier, first, bar)
        pairs = [
            (
                runs[s].scores.accuracy(epoch, classifier),
                alone[s].scores.accuracy(epoch, against),
            )
            for s in seeds
        ]
        values = [a - b for a, b in pairs if a is not None and b is not None]
        if len(values) == len(seeds):
            yield Difference(label, classifier, against, kind, epoch, seeds, paired(values))


def _opponent(
    classifier: str, result: Result, alone: Result
) -> tuple[Literal["mean peer", "peer", "ensemble", "its own"], str]:
    """Kind and opponent of a classifier: one network against one, several against several."""
    if classifier == "mean peer":
        return "mean peer", "mean peer"
    if classifier in result.scores.peers:
        return "peer", classifier
    if (
        classifier in result.manifest.students
    ):  # a leader, a mean teacher: as large and fast as a peer
        return "its own", f"peer{result.manifest.students[classifier]}"
    several = "ensemble" if "ensemble" in alone.scores.last else "peer0"
    return ("ensemble" if classifier == "ensemble" else "its own"), several
