"""Times several things in turn, so that a busy neighbour disturbs all of them alike.

A contender is a callable that does one round of its work and returns its seconds. All contenders do
a round, then all do another, in reverse order every second time. A ratio is computed within each
round. Reported are its median and quartiles over the rounds, and the ratio of the fastest rounds,
which a neighbour disturbs least.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from figures import Figure

Contender = Callable[[], float]
Seconds = dict[str, list[float]]
"""The seconds of every round, by the name of the contender."""

WARM_UP_STEPS = 4  # kernels are chosen, memory is first touched, batch normalisation settles


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def timed(work: Callable[[], Any], clock: str = "wall") -> Contender:
    """Makes `work` a contender.

    Args:
        work: the function to time.
        clock: "wall", or "cpu": the time that this process had a processor, all threads together.
            On one thread it is the wall time without neighbours, except for their use of caches and
            memory. It does not see other processes, such as a DataLoader's.
    """
    now = CLOCKS[clock]

    def contender() -> float:
        begin = now()
        work()
        return now() - begin

    return contender


def interleave(contenders: Mapping[str, Contender], rounds: int, warm_up: int) -> Seconds:
    """The seconds of `rounds` rounds of each contender; `warm_up` rounds before are not counted."""
    seconds: Seconds = {name: [] for name in contenders}
    for i in range(warm_up + rounds):
        names = list(contenders)
        for name in names if i % 2 == 0 else reversed(names):
            value = contenders[name]()
            if i >= warm_up:
                seconds[name].append(value)
    return seconds


def ratio(name: str, slow: Sequence[float], fast: Sequence[float], **about: Any) -> Figure:
    """The ratio of the time of `slow` to that of `fast`."""
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    quarters = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios
    best = min(slow) / min(fast)
    return Figure(name, statistics.median(ratios), quarters[0], quarters[-1], best, **about)


def rates(seconds: Seconds, images: int) -> list[Figure]:
    """Images per second of each contender; `images` is the number per round."""
    figures = []
    for name, values in seconds.items():
        rate = [images / value for value in values]
        quarters = statistics.quantiles(rate, n=4, method="inclusive") if len(rate) > 1 else rate
        middle, best = statistics.median(rate), max(rate)
        figures.append(Figure(name, middle, quarters[0], quarters[-1], best, unit="images/s"))
    return figures


class Worker:
    """A contender in a separate process, which may have another environment.

    The process writes "ready". For every line "round" that it reads, it writes the seconds of a
    round. It sleeps in between, so that it disturbs nobody.

    Args:
        command: the command to start. Its errors are shown if it ends early.
        environment: the environment variables of the process. Default: this process's.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str] | None = None):
        self._errors = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
        )
        self._read()

    def __call__(self) -> float:
        self.begin()
        return self.wait()

    def begin(self) -> None:
        """Starts a round."""
        self._process.stdin.write("round\n")
        self._process.stdin.flush()

    def wait(self) -> float:
        """Waits for the round to end; returns its seconds."""
        return float(self._read())

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _read(self) -> str:
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            errors = self._errors.read()[-3000:]
            self.__exit__()
            sys.exit(f"{self._process.args} ended early:\n{errors}")
        return line


def serve(contender: Contender) -> None:
    """The other side of `Worker`: does rounds until it is asked to stop."""
    answers, sys.stdout = sys.stdout, sys.stderr  # nobody else writes among the answers
    print("ready", file=answers, flush=True)
    for _ in sys.stdin:
        print(contender(), file=answers, flush=True)
