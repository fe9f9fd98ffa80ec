"""What each method needs and costs, found by trying it, for `codistill list methods`."""

import contextlib
import copy
import functools
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from codistill.analysis.cost.probing import random_views
from codistill.analysis.cost.training_flops import step_flops
from codistill.errors import InputError
from codistill.methods import method_class
from codistill.methods.method import Method
from codistill.methods.parameters import parameter_counts
from codistill.names import METHODS
from codistill.networks.build import build_network
from codistill.networks.network import Network
from codistill.networks.peers import Peers

ABOUT = (
    "Parameters, views and cost are those of 3 ResNet-20 for 100 classes, which share two of "
    "their three stages if the method allows it. Cost: FLOPs of a training step divided by those "
    "of independent with the same peers. Options have the paper's values here; a run scales those "
    "that belong to the length of the paper's training."
)
_NETWORK, _CLASSES, _PEERS, _SHARED = "resnet20", 100, 3, 2
_IMAGE_SIZE, _IMAGES = (32, 32), 2


@dataclass(frozen=True)
class Overview:
    """A method in a few facts.

    Attributes:
        name: its name on the command line.
        idea: the first line of its file.
        paper: authors and venue, or "no paper".
        year: year of the paper.
        fewest_peers: the smallest number of peers that it takes.
        trunk: whether peers must, may or must not share stages.
        views: augmented views of each image.
        classifiers: classifiers that it adds to the peers and their ensemble.
        keeps: classifiers of which one is exported.
        parameters: parameters that it adds and trains, for the peers in ABOUT.
        copies: parameters that it holds and does not train, for the peers in ABOUT.
        forwards: number of times that the peers compute a batch in a step.
        cost: FLOPs of a training step divided by those of `independent` with the same peers.
        options: options of its constructor, with their defaults.
    """

    name: str
    idea: str
    paper: str
    year: int | None
    fewest_peers: int
    trunk: Literal["must share", "may share", "must not share"]
    views: int
    classifiers: tuple[str, ...]
    keeps: tuple[str, ...]
    parameters: int
    copies: int
    forwards: int
    cost: float
    options: dict[str, Any]


def overview(name: str) -> Overview:
    """The facts about a method of `names.METHODS`."""
    possible = [shared for shared in (0, _SHARED) if _takes(name, _PEERS, shared)]
    shared = possible[-1]
    method = _build(name, _PEERS, shared)
    parameters, views = parameter_counts(method), random_views(method, _IMAGE_SIZE, _IMAGES)
    options = list(inspect.signature(method_class(name)).parameters.values())[1:]  # after peers
    idea, paper, year = _title(method)
    return Overview(
        name=name,
        idea=idea,
        paper=paper,
        year=year,
        fewest_peers=next(K for K in (1, 2, 3) if _takes(name, K, shared)),
        trunk="may share" if len(possible) == 2 else "must share" if shared else "must not share",
        views=method.views,
        classifiers=tuple(n for n in method(views).extra if n != "ensemble"),
        keeps=tuple(method.students()),
        parameters=parameters["method"],
        copies=parameters["frozen"],
        forwards=method.forwards,
        cost=_step_flops(method) / _independent_flops(shared),
        options={p.name: p.default for p in options},
    )


def describe(o: Overview) -> Iterator[str]:
    """The facts as lines of text."""
    views = "1 view" if o.views == 1 else f"{o.views} views"
    forwards = "1 forward" if o.forwards == 1 else f"{o.forwards} forwards"
    added = [f"{o.parameters:,} trained"] if o.parameters else []
    added += [f"{o.copies:,} not trained"] if o.copies else []
    yield f"{o.idea}; {o.paper}"
    yield (
        f"{o.fewest_peers} or more peers, which {o.trunk} a trunk; {views}, {forwards} per step, "
        f"cost x{o.cost:.2f}; adds {' and '.join(added) or 'no'} parameters"
    )
    kinds = " or ".join(dict.fromkeys(name.rstrip("0123456789") for name in o.keeps))
    kept = f"the best {kinds}" if len(o.keeps) > 1 else f"the {kinds}"
    yield f"evaluates {', '.join(['the peers', 'ensemble', *o.classifiers])}; keeps {kept}"
    if o.options:
        yield "options: " + ", ".join(f"{name}={value}" for name, value in o.options.items())


def additions(peers: Peers) -> Iterator[tuple[str, dict[str, int] | str]]:
    """For each method with its defaults: `parameter_counts` with these peers, or why it fails."""
    for name in METHODS:
        try:
            yield name, parameter_counts(method_class(name)(copy.deepcopy(peers)))
        except InputError as error:
            yield name, str(error)


def _takes(name: str, K: int, shared: int) -> bool:
    with contextlib.suppress(InputError):
        _build(name, K, shared)
        return True
    return False


def _build(name: str, K: int, shared: int) -> Method:
    peers = Peers([build_network(_NETWORK, _CLASSES) for _ in range(K)], shared)
    _, *options = inspect.signature(method_class(name)).parameters.values()
    wants = [p.name for p in options if Network in get_args(p.annotation)]  # such as a teacher
    return method_class(name)(peers, **{n: build_network(_NETWORK, _CLASSES) for n in wants})


@functools.cache
def _independent_flops(shared: int) -> float:
    return _step_flops(_build("independent", _PEERS, shared))


def _step_flops(method: Method) -> float:
    return step_flops(method, _IMAGE_SIZE, _IMAGES, epoch=10_000)  # when distillation is on


def _title(method: Method) -> tuple[str, str, int | None]:
    """Idea, paper and year, from the head of the method's file.

    It reads "NAME: idea.", a blank line, and "Authors: Title. VENUE YEAR." of the paper.
    """
    head = (sys.modules[type(method).__module__].__doc__ or "").strip()
    first, _, rest = head.partition("\n")
    idea = (first.partition(": ")[2] or first).rstrip(".")
    found = re.match(r"([^:]+): [^.]+\.\s+([^.]*?) (\d{4})\.", rest.strip())
    if not found:
        return idea, "no paper", None
    authors, venue, year = found[1].split(", "), " ".join(found[2].split()), int(found[3])
    who = f"{authors[0]} et al." if len(authors) > 2 else " and ".join(authors)
    return idea, f"{who}, {venue} {year}", year
