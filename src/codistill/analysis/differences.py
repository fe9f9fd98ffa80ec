"""Which methods helped: each run minus the networks alone of the same seed, with statistics.

The two runs of a pair have the same first weights, order of images and augmentation. Only seeds
that both sides have make pairs.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from codistill.analysis.paired import (
    SIGNIFICANT,
    Paired,
    holm,
    paired,
    shown_from,
    shown_from_in_words,
)
from codistill.messages import signed
from codistill.runs.finished import Result
from codistill.runs.results import Epoch

Kind = Literal["mean peer", "student", "peer", "ensemble", "its own"]
EPOCHS: tuple[Epoch, ...] = ("last", "last_five", "best_by_validation")

_TWO_SIDED = 1.96  # of the normal distribution, 95 %

BySeed = Mapping[int, Result]


@dataclass(frozen=True)
class Difference:
    """A classifier of a method against one of the networks alone.

    Attributes:
        label: label of the method's row.
        classifier: a classifier of the method, or "mean peer".
        against: a classifier of the networks alone, or "mean peer".
        kind: kind of comparison; p values are corrected within a kind.
        epoch: the last epoch, the mean of the last five, or the epoch that the held-out images
            chose.
        seeds: seeds of the pairs.
        statistics: statistics of the differences in top-1 accuracy, in percentage points.
        p: p value of the statistics after Holm's correction.
        comparisons: number of comparisons of this kind.
    """

    label: str
    classifier: str
    against: str
    kind: Kind
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


def concluded_from(found: Sequence[Difference]) -> list[Difference]:
    """The comparisons after the last epoch that count: of named students, else of mean peers."""
    last = [d for d in found if d.epoch == "last"]
    return [d for d in last if d.kind == "student"] or [d for d in last if d.kind == "mean peer"]


def conclusion(
    found: Sequence[Difference], test_images: int | None = None, alone: float | None = None
) -> str:
    """What a comparison shows after the last epoch, and how large the rest had to be to be shown.

    It is on the named student, where there is one, else on the mean peer. How large a difference
    had to be is said of the methods of which nothing is shown, by their own spreads.

    Args:
        found: all comparisons, corrected.
        test_images: number of images that were tested on, if it is known.
        alone: test top-1 in % of the networks alone, if it is known.
    """
    counted = concluded_from(found)
    if not counted:
        return "No method has a finished run beside the networks alone of the same seed."
    of = "the student" if counted[0].kind == "student" else "the peers"
    said = [
        f"{', '.join(those)} {verdict} {of}"
        for verdict in ("helped", "hurt")
        if (those := [_by(d) for d in counted if d.verdict == verdict])
    ]
    undecided = [d for d in counted if d.verdict not in ("helped", "hurt")]
    if undecided:
        them = ", ".join(map(_by, undecided))
        none = f"No method is shown to help or to hurt {of}: {them}"
        said.append(f"not shown to help or to hurt: {them}" if said else none)
    images = f" on {test_images:,} test images" if test_images else ""
    needed = shown_from([d.statistics for d in undecided])
    labelled = [(d.label, d.statistics.n, x) for d, x in zip(undecided, needed, strict=True)]
    sentences = [f"{'; '.join(said)}.", *shown_from_in_words(labelled, images)]
    sizes = [abs(d.statistics.mean) for d in counted if d not in undecided]
    sizes += [x for x in needed if x is not None]
    margin = _margin(alone, test_images) if test_images and alone else 0.0
    if margin > min(sizes, default=0.0):
        sentences.append(
            f"An accuracy of {alone:.0f} % on {test_images:,} images is itself uncertain by about "
            f"{margin:.1f} points."
        )
    return " ".join(sentences)


def _by(d: Difference) -> str:
    """A label with its mean difference, and the interval of that."""
    if d.statistics.interval is None:
        return f"{d.label} ({signed(d.statistics.mean, 2)})"
    low, high = (signed(x, 1) for x in d.statistics.interval)
    return f"{d.label} ({signed(d.statistics.mean, 2)} [{low}, {high}])"


def _margin(accuracy: float, images: int) -> float:
    """Half of the 95 % interval, in points, of an accuracy in % that so many images tell."""
    return _TWO_SIDED * (accuracy * (100 - accuracy) / images) ** 0.5


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
                runs[s].accuracy(epoch, classifier),
                alone[s].accuracy(epoch, against),
            )
            for s in seeds
        ]
        values = [a - b for a, b in pairs if a is not None and b is not None]
        if len(values) == len(seeds):
            yield Difference(label, classifier, against, kind, epoch, seeds, paired(values))


def _peer_like(peer: str, result: Result, alone: Result) -> str:
    """The peer of the networks alone that has a peer's network: mostly at the same place."""
    ours, theirs = result.config.networks(), alone.config.networks()
    name = ours[int(peer.removeprefix("peer"))]
    return (
        peer
        if theirs[int(peer.removeprefix("peer")) :][:1] == [name]
        else f"peer{theirs.index(name)}"
    )


def _opponent(classifier: str, result: Result, alone: Result) -> tuple[Kind, str]:
    """Kind and opponent of a classifier: one network against one, several against several."""
    if classifier == "mean peer":
        return "mean peer", "mean peer"
    if classifier == result.student_peer:
        return "student", alone.student_peer or classifier
    if classifier in result.scores.peers:
        return "peer", _peer_like(classifier, result, alone)
    if (
        classifier in result.manifest.students
    ):  # a leader, a mean teacher: as large and fast as a peer
        return "its own", f"peer{result.manifest.students[classifier]}"
    several = "ensemble" if "ensemble" in alone.scores.last else "peer0"
    return ("ensemble" if classifier == "ensemble" else "its own"), several
