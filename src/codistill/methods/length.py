"""Scales constants that belong to the length of a paper's training to the length of a run.

Some constants of a paper belong to the length of its training: a ramp-up of 80 epochs belongs to
300 epochs. A method names such constants in `Method.scales`, each with one of the rules below. The
command applies the rule to every constant that the user has not set. In Python a constructor's
default stays the paper's.
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
    """For a number of epochs, or several: keeps the share of the run, at least 1. 0 stays 0."""
    if isinstance(value, list | tuple):
        return [share_of_epochs(part, paper, run) for part in value]
    return value and max(1, round(value * run.epochs / paper.epochs))


def constant_travel(value: float, paper: Length, run: Length) -> float:
    """For a learning rate: keeps the product of rate and number of steps."""
    return float(f"{value * paper.steps / run.steps:.6g}")


def share_of_steps(value: float, paper: Length, run: Length) -> float:
    """For the decay of a moving average: keeps the share of the run that its horizon has.

    The horizon of an average is 1 / (1 - decay) steps.
    """
    return float(f"{max(0.0, 1 - (1 - value) * paper.steps / run.steps):.6g}")


def scaled_defaults(method: Any, run: Length) -> dict[str, Any]:
    """Those defaults of a method's constructor that depend on the length, scaled to a run.

    Args:
        method: a subclass of `Method`.
        run: the length of the run.
    """
    scales: Mapping[str, Rule] = method.scales
    defaults = inspect.signature(method).parameters
    paper = method.paper_length
    return {name: rule(defaults[name].default, paper, run) for name, rule in scales.items()}


def scaling_notes(method: Any, given: Container[str], run: Length) -> Iterator[str]:
    """One line that names the defaults changed for a run's length; no line if none changed.

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
