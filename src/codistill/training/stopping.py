"""A clean end of a training between two steps: for signals, limits of time and the like."""

from collections.abc import Callable

Stop = Callable[[], bool]
"""Says whether to stop. The loop asks after each step and before each batch of an evaluation."""


class Stopped(Exception):
    """A `Stop` said so. Within the package only: `epochs` ends there."""


def never() -> bool:
    """The `Stop` of a training that ends after its last epoch."""
    return False


def ask(stop: Stop) -> None:
    """Raises Stopped if `stop` says so."""
    if stop():
        raise Stopped
