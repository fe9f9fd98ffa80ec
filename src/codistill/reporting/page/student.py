"""The student of each setting, the network that ships, beside the same network trained alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Literal

from codistill.analysis.intervals import interval_of_mean, interval_of_share
from codistill.analysis.paired import SIGNIFICANT, Paired, holm, paired
from codistill.reporting.page.setting import Setting, kept_peer
from codistill.runs.finished import Result
from codistill.runs.results import Epoch

_OF_METHOD = ("method", "network", "student", "peers", "shared", "keep", "weights")
ALONE = "independent"


@dataclass(frozen=True, eq=False)
class Student:
    """The students of a setting, one for each seed.

    Attributes:
        setting: the setting.
        networks: the names of their networks, without repetition; mostly one.
        top1: test accuracies in %.
        alone: test accuracies in % of the same networks trained alone, of the seeds that both have.
        statistics: statistics of the differences; None without `alone`.
        p: p value of the statistics, corrected for the number of students on the page.
    """

    setting: Setting
    networks: Sequence[str]
    top1: Sequence[float]
    alone: Sequence[float] = ()
    statistics: Paired | None = None
    p: float | None = None

    @property
    def verdict(self) -> Literal["helped", "hurt", "open"]:
        """Whether teaching is shown to have helped or to have hurt the student."""
        if self.statistics is None or self.p is None or self.p >= SIGNIFICANT:
            return "open"
        return "helped" if self.statistics.mean > 0 else "hurt"


def students_of(
    settings: Sequence[Setting], baselines: Mapping[str, str] | None = None
) -> list[Student]:
    """The student of each setting, in their order.

    Args:
        settings: settings of the page.
        baselines: for each label, the label of the networks alone. Default: those that the method
            `independent` trained on the same images with the same settings.
    """
    by_label = {s.label: s for s in settings}
    found = []
    for s in settings:
        alone = by_label.get(baselines.get(s.label, "")) if baselines else _alone(s, settings)
        found.append((s, _pairs(s, alone) if alone and alone is not s else []))
    statistics = [paired([a - b for a, b in pairs]) if pairs else None for _, pairs in found]
    corrected = holm([x.p if x else None for x in statistics])
    return [
        Student(
            s,
            list(dict.fromkeys(map(network_of, s.results))),
            [r.scores.kept_top1 for r in s.results],
            [b for _, b in pairs],
            of,
            p,
        )
        for (s, pairs), of, p in zip(found, statistics, corrected, strict=True)
    ]


def network_of(result: Result) -> str:
    """The name of the network that ships."""
    peer, networks = kept_peer(result), result.config.networks()
    known = peer.startswith("peer") and peer[4:].isdigit()
    return networks[int(peer[4:])] if known else " or ".join(dict.fromkeys(networks))


def is_alone(setting: Setting) -> bool:
    """Whether nobody taught the networks of a setting."""
    return bool(setting.results[0].config.method["name"] == ALONE)


def with_interval(values: Sequence[float], images: int, unit: str = " %") -> str:
    """The mean of accuracies in %, with its 95 % confidence interval.

    Args:
        values: accuracies, one for each seed.
        images: number of test images, from which the interval of a single value is.
        unit: text behind the mean.
    """
    low, high = interval_of_mean(values) or interval_of_share(mean(values), images)
    return f"{mean(values):.1f}{unit} [{max(0.0, low):.1f}, {min(100.0, high):.1f}]"


def _alone(setting: Setting, settings: Iterable[Setting]) -> Setting | None:
    """The networks alone that were trained like a setting; the same networks before others."""
    if is_alone(setting):
        return None
    result = setting.results[0]
    wanted = {network_of(r) for r in setting.results}
    candidates = [
        s
        for s in settings
        if is_alone(s)
        and wanted <= set(s.results[0].config.networks())
        and _training(s.results[0]) == _training(result)
    ]
    networks = result.config.networks()
    candidates.sort(key=lambda s: s.results[0].config.networks() != networks)
    return candidates[0] if candidates else None


def _training(result: Result) -> dict[str, object]:
    """The settings, and the fingerprint of the images, without those of a method and networks."""
    return {k: v for k, v in result.recipe.items() if k.partition(".")[0] not in _OF_METHOD}


def _pairs(setting: Setting, alone: Setting) -> list[tuple[float, float]]:
    """For each seed of both: accuracy of the student, and of its network alone."""
    of_seed = {r.config.seed: r for r in alone.results}
    found = []
    for r in setting.results:
        other = of_seed.get(r.config.seed)
        top1 = _top1_of(network_of(r), kept_peer(r), other) if other else None
        if top1 is not None:
            found.append((r.scores.kept_top1, top1))
    return found


def _top1_of(network: str, peer: str, alone: Result) -> float | None:
    """Accuracy of a network in the epoch that ships of a run of networks alone."""
    names = {f"peer{k}": n for k, n in enumerate(alone.config.networks())}
    same = sorted((p for p, n in names.items() if n == network), key=lambda p: p != peer)
    epoch: Epoch = "last" if alone.scores.kept[1] == "last" else "best_by_validation"
    return alone.accuracy(epoch, same[0]) if same else None
