"""Which value of a setting is best, by the held-out images. The test set has no part in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from codistill.analysis.paired import paired, shown_from, shown_from_in_words
from codistill.runs.finished import Result

BySeed = Mapping[int, Result]


@dataclass(frozen=True)
class Tried:
    """One value of each setting of a sweep.

    Attributes:
        label: label of its row.
        values: the values by the settings' names.
        accuracies: held-out top-1 in % after the last epoch, one for each seed of the sweep.
    """

    label: str
    values: Mapping[str, Any]
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        return mean(self.accuracies)


@dataclass(frozen=True)
class Sweep:
    """One method with all values.

    Attributes:
        method: label of the method, with its network if there are several.
        of: whose accuracy counts: "student" where one is named, else "mean peer".
        seeds: seeds that all values have.
        tried: values, in the order of the file.
    """

    method: str
    of: str
    seeds: tuple[int, ...]
    tried: tuple[Tried, ...]

    @property
    def chosen(self) -> Tried:
        """The values of the best mean; the first of several."""
        return max(self.tried, key=lambda t: t.mean)

    @property
    def following(self) -> Tried:
        """The values of the best mean among the others."""
        return max((t for t in self.tried if t is not self.chosen), key=lambda t: t.mean)


def sweep(method: str, rows: Sequence[tuple[str, Mapping[str, Any], BySeed]]) -> Sweep | None:
    """The sweep of a method; None if no seed has finished with every value.

    Args:
        method: label of the method.
        rows: label, values, and finished runs by seed, of each row.
    """
    seeds = sorted(set.intersection(*({*runs} for _, _, runs in rows)))
    if not seeds:
        return None
    some = rows[0][2][seeds[0]]
    tried = [
        Tried(label, values, tuple(_held_out(runs[seed]) for seed in seeds))
        for label, values, runs in rows
    ]
    of = "student" if some.config.student else "mean peer"
    return Sweep(method, of, tuple(seeds), tuple(tried))


def choice_in_words(sweeps: Sequence[Sweep], held_out: int) -> str:
    """What the held-out images chose, and how large a difference had to be to be shown.

    Args:
        sweeps: one or more sweeps over the same settings.
        held_out: number of held-out images.
    """
    chosen = [f"{s.method}, {in_words(s.chosen.values)}{_lead(s)}" for s in sweeps]
    text = f"By the held-out images, the best values are: {'; '.join(chosen)}."
    leads = [
        paired([a - b for a, b in zip(s.chosen.accuracies, s.following.accuracies, strict=True)])
        for s in sweeps
    ]
    labelled = [
        (s.method, lead.n, x) for s, lead, x in zip(sweeps, leads, shown_from(leads), strict=True)
    ]
    images = f" on {held_out:,} held-out images, of which one is {100 / held_out:.1f} points"
    if edges := [f"{s.method}, {edge}" for s in sweeps for edge in _edges(s)]:
        text += f" At the edge of what was tried: {'; '.join(edges)}."
    said = shown_from_in_words(labelled, images, "a mean difference between two values")
    return " ".join([text, *said])


def in_words(values: Mapping[str, Any]) -> str:
    """Values with the names of their settings: "lr=0.1, temperature=3"."""
    return ", ".join(f"{name.removeprefix('method.')}={value}" for name, value in values.items())


def _lead(s: Sweep) -> str:
    """Accuracy of the chosen values, and how far the next ones are behind."""
    ahead = s.chosen.mean - s.following.mean
    values = in_words(s.following.values)
    return f" ({s.chosen.mean:.1f} %, {ahead:.1f} points more than {values})"


def _edges(s: Sweep) -> list[str]:
    """The chosen numbers that are the smallest or the largest of three or more."""
    found = []
    for name, value in s.chosen.values.items():
        numbers = {t.values[name] for t in s.tried if type(t.values[name]) in (int, float)}
        if len(numbers) >= 3 and value in (min(numbers), max(numbers)):
            found.append(in_words({name: value}))
    return found


def _held_out(result: Result) -> float:
    """Held-out top-1 in % of the named student, or of the mean peer, after the last epoch."""
    names = [result.student_peer] if result.student_peer else result.scores.peers
    return mean(result.scores.last[name]["val/top1"] for name in names)
