"""Accuracy and its cost: parameters and FLOPs in use, FLOPs and seconds of training."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import floor, log10
from statistics import mean, median

from codistill.reporting.page.drawing import (
    FILLS,
    canvas,
    image_of,
    name_points,
    plain_ticks,
    point,
    sd,
)
from codistill.reporting.page.parts import Figure, Figures, Fold, Part, Section, Table
from codistill.reporting.page.setting import Setting, kept_peer, key_of, named, top1_of
from codistill.reporting.tables import spread_of
from codistill.runs.finished import Result
from codistill.runs.results import EPOCH_THAT_SHIPS
from codistill.settings.build_method import network_files

_E = 1e6
_UNITS = {1e6: "M", 1e9: "G", 1e12: "T", 1e15: "P", 1e18: "E"}


@dataclass(frozen=True)
class CostPoint:
    """Something of a setting that can classify, and its cost.

    Attributes:
        what: "kept", "ensemble", or the name of a classifier that the method adds.
        top1: test accuracies in %, one for each seed.
        parameters: number of parameters; None if the run does not record it, or seeds differ.
        flops: FLOPs of a forward pass with one image; None if the run does not record them, if
            seeds differ, or if the method's forward runs networks that the classifier does not
            need.
        training: FLOPs of the training that it takes; None if they could not be counted.
    """

    what: str
    top1: list[float]
    parameters: int | None
    flops: int | None
    training: float | None


def accuracy_and_cost(
    settings: Sequence[Setting], training: Mapping[Setting, float | str] | None = None
) -> Section:
    """Accuracy against parameters and FLOPs in use, and against FLOPs and time of the training.

    Args:
        settings: what is compared.
        training: FLOPs of each setting's training, or why they could not be counted; None if
            nothing was measured.
    """
    counted = {s: n for s, n in (training or {}).items() if not isinstance(n, str)}
    used = {s: _used(s, counted.get(s)) for s in settings}
    uncounted = [s for s in settings if not s.results[0].manifest.flops]
    missing = [f"FLOPs of {named(uncounted, settings)} are not recorded."] if uncounted else []
    missing += [
        f"The training cost of {s.title} could not be counted: {why}."
        for s, why in (training or {}).items()
        if isinstance(why, str)
    ]
    table = _table(used, training is not None)
    axes = (_PARAMETERS, _FLOPS, _TRAINING, _MINUTES)
    figures = [f for f in (_figure(used, axis) for axis in axes) if f]
    parts: list[Part] = [
        *_drawn(figures, settings),
        table if len(settings) == 1 else Fold(table.caption, [table]),
    ]
    machines = {_where(r) for s in settings for r in s.results}
    if len(machines) > 1:
        missing.append(
            "The runs were trained on different machines or with different numbers of threads "
            f"({'; '.join(sorted(machines))}): their seconds cannot be compared."
        )
    return Section(
        "cost",
        "Accuracy and cost",
        "Higher and further to the left is better. Filled: the kept network. Hollow: the ensemble, "
        "which costs as much as all peers. Half-filled: a classifier that the method adds. Bars "
        "are one standard deviation over seeds. FLOPs count convolutions and matrix products of a "
        "forward pass with one image, 2 per multiply-add. Training cost: FLOPs of forward and "
        "backward passes of everything that a training step computes, over the whole training; a "
        "teacher's forward passes count, its own training does not. Of networks that were trained "
        "alone, without a trunk, the kept one is charged with its own training only, unless "
        "held-out images chose it among them. Seconds are those of the training steps without "
        "evaluation, of all peers. They include whatever else the machine did at that time.",
        parts,
        missing,
    )


def _drawn(figures: Sequence[Figure], settings: Sequence[Setting]) -> list[Part]:
    return [Figures(figures), key_of(settings)] if figures else []


def _used(setting: Setting, training: float | None = None) -> list[CostPoint]:
    """The kept network, the ensemble, and the classifiers that the method adds."""
    first = setting.results[0]
    counts, flops = first.manifest.parameters, first.manifest.flops
    top1 = [r.scores.kept_top1 for r in setting.results]
    peers = {kept_peer(r) for r in setting.results}
    sizes, costs = {counts.get(p) for p in peers}, {flops.get(p) for p in peers}
    size, cost = (x.pop() if len(x) == 1 else None for x in (sizes, costs))
    its_own = training
    if training and len(first.scores.peers) > 1 and _learns_alone(first):
        its_own = training * cost / flops["peers"] if cost and flops.get("peers") else None
    found = [CostPoint("kept", top1, size, cost, its_own)]
    may_be_kept = {*first.manifest.students, *counts} | setting.given
    for name in ("ensemble", *setting.own):
        values = top1_of(setting, name)
        if not values or name in may_be_kept:
            continue
        if name == "ensemble":
            found.append(CostPoint(name, values, counts["peers"], flops.get("peers"), training))
        elif not _was_given_networks(first):
            size = counts["peers"] + counts["method"]
            runs_others = counts.get("frozen")  # such as mean teachers, with all the rest
            cost = None if runs_others else flops.get("method")
            found.append(CostPoint(name, values, size, cost, training))
    return found


def _learns_alone(result: Result) -> bool:
    """Whether the kept network could have been trained without the others."""
    chosen = result.scores.student.best is not None and result.student_peer is None
    return result.config.method["name"] == "independent" and not result.config.shared and not chosen


def _was_given_networks(result: Result) -> bool:
    return bool(result.manifest.networks or network_files(result.config.method))


def _seconds(setting: Setting, over_epochs: Callable[[list[float]], float]) -> list[float]:
    """The seconds of each seed that recorded them, its epochs taken together."""
    of_seeds = [[e["seconds"] for e in r.history if "seconds" in e] for r in setting.results]
    return [over_epochs(seconds) for seconds in of_seeds if seconds]


def _unit_of(used: Mapping[Setting, Sequence[CostPoint]]) -> float:
    """The unit for the FLOPs of trainings in which the largest number is 1 to 1,000."""
    most = max((u.training or 0.0 for things in used.values() for u in things), default=0.0)
    return max((unit for unit in _UNITS if unit <= most), default=min(_UNITS))


_PARAMETERS, _FLOPS = "parameters [millions]", "FLOPs [millions]"
_TRAINING, _MINUTES = "training cost [{}FLOPs]", "training time [minutes]"


def _figure(used: dict[Setting, list[CostPoint]], axis: str) -> Figure | None:
    """Kept networks and ensembles as points."""
    drawn: list[tuple[Setting, CostPoint, float]] = []
    unit = _unit_of(used)
    for s, things in used.items():
        seconds = _seconds(s, sum)
        for u in things:
            x = {
                _PARAMETERS: u.parameters and u.parameters / _E,
                _FLOPS: u.flops and u.flops / _E,
                _TRAINING: u.training and u.training / unit,
                _MINUTES: mean(seconds) / 60 if seconds else None,
            }[axis]
            if x is not None:
                drawn.append((s, u, x))
    axis = axis.format(_UNITS[unit])
    if len(drawn) < 2:
        return None
    with canvas(height=3.5) as (figure, axes):
        for s, u, x in drawn:
            point(axes, (x, mean(u.top1)), s.style, FILLS.get(u.what, "left"), yerr=sd(u.top1))
        axes.set(xlabel=axis, ylabel="test top-1 [%]")
        axes.margins(x=0.2, y=0.08)
        places = [x for *_, x in drawn]
        if max(places) > 20 * min(places) > 0:
            axes.set_xscale("log")
            plain_ticks(axes.xaxis, between=False)
        else:
            axes.locator_params(axis="x", nbins=5)  # a short run's minutes have long numbers
        alone = len(used) == 1  # its number says nothing
        names = [(u.what if alone else s.head, x, mean(u.top1)) for s, u, x in drawn]
        name_points(axes, names)
        said = "; ".join(f"{s.number} {u.what}: {x:.3g}, {mean(u.top1):.2f} %" for s, u, x in drawn)
        title = f"Accuracy against {axis.partition(' [')[0]}"
        text = f"{axis} and test top-1 by number of the setting: {said}."
        return Figure(title, image_of(figure), text)


def _table(used: dict[Setting, list[CostPoint]], counted: bool) -> Table:
    rows, unit = [], _unit_of(used)
    for s, things in used.items():
        whole, each = _seconds(s, sum), _seconds(s, median)
        for u in things:
            rows.append(
                [
                    s.head,
                    u.what,
                    spread_of(u.top1),
                    f"{u.parameters:,}" if u.parameters else "-",
                    f"{u.flops / _E:,.1f}" if u.flops else "-",
                    *([_three_digits(u.training / unit) if u.training else "-"] * counted),
                    spread_of(whole, 0) if whole else "-",
                    spread_of(each, 1) if each else "-",
                    str(len(s.results)),
                ]
            )
    return Table(
        "What accuracy costs",
        (
            "#",
            "used",
            "top-1 %",
            "parameters",
            "MFLOPs",
            *([f"training {_UNITS[unit]}FLOPs"] * counted),
            "train s",
            "s/epoch",
            "n",
        ),
        rows,
        f"kept: the network in student.safetensors, {EPOCH_THAT_SHIPS}. "
        "The others are measured after the last epoch. parameters "
        "and MFLOPs: of the network in use, not of all that was trained. train s: the steps of the "
        "whole training, of all peers. s/epoch: median of its epochs. A "
        "classifier that the method adds is counted with all peers and all modules that the method "
        "trains; it is left out if the method was given a network, such as a teacher. “-”: seeds "
        "keep peers of different size, the method runs networks beside the classifier that are "
        "not trained, or the number is not known.",
        headers=2,
    )


def _three_digits(x: float) -> str:
    return f"{x:,.{max(0, 2 - floor(log10(x)))}f}"


def _where(result: Result) -> str:
    """The machines and threads of a run, in words."""
    found = []
    for p in result.manifest.processes:
        threads = f", {p.threads} threads" if p.device == "cpu" else ""
        found.append(f"{p.device} {p.processor}".strip() + threads)
    return " and ".join(dict.fromkeys(found))
