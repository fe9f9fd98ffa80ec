"""Ends a training in time: at a signal, after --max_time, or before a SLURM job ends.

Only commands install handlers of signals, and only while they train. In Python a caller gives
`fit` or `Run.train` a function `stop` of his own.
"""

import contextlib
import math
import os
import re
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from types import FrameType

from codistill import clock
from codistill.errors import InputError
from codistill.messages import note
from codistill.signals import ENDING

CALL_AGAIN = 75
"""Exit status when the time is over: the same command goes on (EX_TEMPFAIL of sysexits.h)."""

_SECONDS_TO_END = 60.0  # kept for the last step, its checkpoint and the end of the process
_SHARE_TO_END = 0.1  # of the whole time, at most
_SECONDS_OF_ONE_SIGNAL = 0.5  # `timeout` and others send it to the process and to its group
_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


class EndedAtOnce(KeyboardInterrupt):
    """A second signal. The process ends with the exit status that belongs to it."""

    def __init__(self, number: int):
        super().__init__()
        self.status = 128 + number


class Stopping:
    """Says whether to stop: a `Stop` for `Run.train` that signals and the time answer.

    Args:
        silent: whether it says nothing, since another process of the training does.

    Attributes:
        reason: what asked to stop, such as "SIGTERM"; empty before.
        status: exit status of the command that is stopped.
    """

    def __init__(self, silent: bool = False) -> None:
        self.silent = silent
        self.reason = ""
        self.status = 0
        self._began = time.monotonic()
        self._end, self._end_reason = math.inf, ""
        self._asked, self._longest = math.inf, 0.0
        self._signalled = 0.0

    def __call__(self) -> bool:
        now = time.monotonic()
        self._longest = max(self._longest, now - self._asked)
        self._asked = now
        if not self.reason and now + self._seconds_to_end() >= self._end:
            self.ask(self._end_reason, CALL_AGAIN)
        return bool(self.reason)

    def ask(self, reason: str, status: int) -> None:
        """Asks to stop. The first reason counts."""
        if not self.reason:
            self.reason, self.status = reason, status

    def take_from(self, others: Iterable[tuple[str, int]]) -> None:
        """Takes the first reason and status that one of several processes has."""
        self.reason, self.status = next((o for o in others if o[0]), (self.reason, self.status))

    def end_within(self, seconds: float, reason: str) -> None:
        """Stops so early that the process has ended so many seconds after this object was made.

        It keeps a minute, and the longest time between two questions so far (a step, an
        evaluation's batch, the end of an epoch), but at most a tenth of the time.
        """
        if self._began + seconds < self._end:
            self._end, self._end_reason = self._began + seconds, reason

    def end_in_time(self, max_time: str | None) -> None:
        """Stops before `max_time`, such as 3h30m, is over, and before the end of a SLURM job.

        Raises:
            InputError: `max_time` is no time.
        """
        if max_time is not None:
            self.end_within(duration(max_time), "--max_time")
        end = os.environ.get("SLURM_JOB_END_TIME", "")  # seconds since 1970
        if not end.isdigit():
            return
        left = int(end) - clock.now().timestamp()
        if left > 0:
            self.end_within(left, "the end of the SLURM job")
        else:
            note(f"SLURM_JOB_END_TIME is {end}, which is over: it is ignored")

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Lets a signal ask to stop, and a second one end the process at once.

        A signal that is ignored stays so, as SIGHUP under nohup. Outside the main thread, which
        alone can have handlers, everything stays as it is.
        """
        before = {}
        if threading.current_thread() is threading.main_thread():
            before = {
                n: h for n in ENDING if (h := signal.getsignal(n)) not in (signal.SIG_IGN, None)
            }
        try:
            for number in before:
                signal.signal(number, self._take)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take(self, number: int, _: FrameType | None) -> None:
        """The handler. A third signal would end the process even if Python did not come to it."""
        now = time.monotonic()
        if not self._signalled:
            self._signalled = now
            name = signal.Signals(number).name
            self.ask(name, 128 + number)
            if not self.silent:
                _print(
                    f"{name}: the step ends, then a checkpoint is written; a second signal ends at "
                    "once"
                )
        elif now - self._signalled > _SECONDS_OF_ONE_SIGNAL:
            for other in ENDING:
                if signal.getsignal(other) == self._take:
                    signal.signal(other, signal.SIG_DFL)
            raise EndedAtOnce(number)

    def _seconds_to_end(self) -> float:
        return min(_SECONDS_TO_END + self._longest, _SHARE_TO_END * (self._end - self._began))


def duration(text: str) -> float:
    """Seconds in a text such as 3h30m, 90m or 1d12h.

    Raises:
        InputError: the text is none such, or no time at all.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms])", text)
    units = [unit for _, unit in parts]
    in_order = units == [unit for unit in _UNITS if unit in units]
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if "".join(map("".join, parts)) != text or not in_order or not 0 < seconds < math.inf:
        raise InputError(f"{text!r} is no time: give days, hours, minutes, seconds, such as 3h30m")
    return seconds


def _print(line: str) -> None:
    """Writes a line past Python's buffers, which a handler of signals must not enter."""
    try:
        os.write(2, f"\ncodistill: {line}\n".encode())
    except OSError:  # the terminal is gone: what is printed later must not fail
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
