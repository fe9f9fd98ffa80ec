"""The signals by which a shell, a user or a cluster ends a process."""

import contextlib
import signal
from collections.abc import Iterator

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
ENDING = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
"""Ctrl-C, the end of a job, a closed terminal, and what a cluster sends before the end of a job."""


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Holds these signals back to the end of the block. Processes that begin in it never get them.

    Where the system knows no such thing, as Windows, it does nothing.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
