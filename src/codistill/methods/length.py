"""Constants that belong to a length of training, and what they become in a training of another.

A paper states some constants for the length that it trains: a ramp-up of 80 epochs belongs to 300.
A method names them in `Method.scales`, each with one of the rules below. The command applies the
rules to every constant that is not given; in Python a constructor's default stays the paper's.
"""

import inspect
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any, NamedTuple


class Length(NamedTuple):
    """How long a training is.

    Attributes:
        epochs: number of passes over the training images.
        steps: number of updates.
    """

    epochs: int
    steps: int


PAPERS = Length(epochs=300, steps=300 * 391)
"""The length in most papers on CIFAR: 50,000 images in batches of 128."""

Rule = Callable[[Any, Length, Length], Any]
"""(the paper's value, the paper's length, the run's length) -> the run's value."""


def share_of_epochs(value: Any, paper: Length, run: Length) -> Any:
    """Epochs, or several of them: the same share of the run, at least 1; 0 stays 0."""
    if isinstance(value, list | tuple):
        return [share_of_epochs(part, paper, run) for part in value]
    return value and max(1, round(value * run.epochs / paper.epochs))


def constant_travel(value: float, paper: Length, run: Length) -> float:
    """A learning rate: the rate times the number of steps stays what it is in the paper."""
    return float(f"{value * paper.steps / run.steps:.6g}")


def share_of_steps(value: float, paper: Length, run: Length) -> float:
    """The decay of a moving average: its horizon, 1 / (1 - decay), is the same share of the run."""
    return float(f"{max(0.0, 1 - (1 - value) * paper.steps / run.steps):.6g}")


def scaled_defaults(method: Any, run: Length) -> dict[str, Any]:
    """The defaults of a method's constructor that depend on the length, for a run.

    Args:
        method: a subclass of `Method`.
        run: the length of the run.
    """
    scales: Mapping[str, Rule] = method.scales
    defaults = inspect.signature(method).parameters
    paper = method.paper_length
    return {name: rule(defaults[name].default, paper, run) for name, rule in scales.items()}


def scaling_notes(method: Any, given: Container[str], run: Length) -> Iterator[str]:
    """One line on the defaults that a run's length changes; none where it changes none.

    Args:
        method: a `Method`. Constants that its own `scales` leave out are not mentioned.
        given: the names of the options that the run sets.
        run: the length of the run.
    """
    defaults, paper = inspect.signature(type(method)).parameters, method.paper_length
    changed = []
    for name, value in scaled_defaults(type(method), run).items():
        before = defaults[name].default
        before = list(before) if isinstance(before, tuple) else before
        if name in method.scales and name not in given and value != before:
            changed.append(f"{name} {before} -> {value}")
    if changed:
        yield (
            f"constants that belong to {paper.epochs} epochs are scaled to {run.epochs}: "
            f"{', '.join(changed)}"
        )
