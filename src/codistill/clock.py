"""The wall clock, read in this one place. Everything else measures time by `time.monotonic`.

A wall clock jumps when it is set right, so that no difference of two readings is to be trusted.
"""

from datetime import UTC, datetime


def now() -> datetime:
    """The date and time in UTC."""
    return datetime.now(UTC)
