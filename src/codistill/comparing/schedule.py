"""Trains the runs of a comparison, several at a time; a run that fails is tried once more."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from filelock import FileLock, Timeout
from rich.console import Console

from codistill.comparing.launchers import Job, Launcher, write_recipe
from codistill.comparing.planned_runs import PlannedRun
from codistill.comparing.processes import HEAD
from codistill.data.batches.workers import available_cores
from codistill.messages import say
from codistill.runs.progress import live_bars
from codistill.runs.results import RunScores
from codistill.training.stopping import Stop, never

_ATTEMPTS = 2
_SECONDS_BETWEEN_LOOKS = 0.2


@dataclass(frozen=True)
class Failure:
    """A run that failed twice.

    Attributes:
        run: the run.
        reason: the last line of its output, and how it ended.
    """

    run: PlannedRun
    reason: str


def train_all(
    runs: Sequence[PlannedRun],
    launcher: Launcher,
    parallel: int,
    console: Console,
    stop: Stop = never,
) -> list[Failure]:
    """Trains all unfinished runs, `parallel` at a time, and returns those that failed.

    An interrupt ends the runs in training first. They can go on from their checkpoints.
    """
    grid = _Grid(runs, launcher, parallel, console)
    with live_bars(console, speed_estimate_period=600.0) as progress:  # epochs take minutes
        bar = progress.add_task("epochs of all runs", total=sum(run.config.epochs for run in runs))
        try:
            while not stop() and grid.step():
                if console.is_terminal:
                    progress.update(bar, completed=sum(run.epochs_done() for run in runs))
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        finally:
            grid.stop()
    return grid.failures


class _Grid:
    def __init__(
        self, runs: Sequence[PlannedRun], launcher: Launcher, parallel: int, console: Console
    ):
        self.launcher, self.console = launcher, console
        self.total = len(runs)
        self.waiting = [run for run in runs if not run.finished()]
        self.training: dict[int, tuple[PlannedRun, Job]] = {}
        self.places = range(parallel)
        self.attempts: Counter[str] = Counter()
        self.elsewhere: set[str] = set()
        self.failures: list[Failure] = []

    def step(self) -> bool:
        """Handles runs that have ended and starts others; returns False when nothing is left."""
        for place, (run, job) in list(self.training.items()):
            ended = job.poll()
            if ended is not None:
                del self.training[place]
                self._end(run, ended)
        for place in self.places:
            if place not in self.training and (following := self._next()):
                self._begin(following, place)
        return bool(self.training or self.waiting)

    def stop(self) -> None:
        """Ends the runs in training."""
        jobs = [job for _, job in self.training.values()]
        for job in jobs:
            job.stop()
        for job in jobs:
            job.wait()

    def _next(self) -> PlannedRun | None:
        """The first run that no process trains: one of a killed call may take moments to end."""
        for run in list(self.waiting):
            if run.finished():  # by others
                self.waiting.remove(run)
                self._say("finished", run, "by another process")
            elif not _is_trained(run):
                self.waiting.remove(run)
                return run
            elif run.name not in self.elsewhere:
                self.elsewhere.add(run.name)
                self._say("waits", run, "another process trains it")
        return None

    def _begin(self, run: PlannedRun, place: int) -> None:
        how = f"continues after epoch {run.epochs_done()}" if run.begun() else "begins"
        self.attempts[run.name] += 1
        self.training[place] = run, self.launcher.start(run, place)
        self._say(how, run, f"log: {run.log}")

    def _end(self, run: PlannedRun, ended: str) -> None:
        if not ended and run.finished():
            self._say("finished", run, RunScores.read(run.path).headline())
            return
        reason = f"{_last_line(run)} ({ended or 'exit status 0, but no result'})"
        if self.attempts[run.name] < _ATTEMPTS:
            self._say("once more", run, reason)
            self.waiting.insert(0, run)
        else:
            self._say("failed", run, reason)
            self.failures.append(Failure(run, reason))

    def _say(self, what: str, run: PlannedRun, more: str) -> None:
        rest = len(self.waiting) + len(self.training)
        count = f"[{self.total - rest}/{self.total}]"
        line = f"{count} {run.name} {what}: {more}"
        say(self.console, line)


def _is_trained(run: PlannedRun) -> bool:
    """Whether a process holds the lock of a run."""
    if not (run.path / ".lock").exists():
        return False
    try:
        with FileLock(run.path / ".lock", timeout=0):
            return False
    except Timeout:
        return True


def _last_line(run: PlannedRun) -> str:
    """The last line of output of a run's last process."""
    lines = run.log.read_text(errors="replace").splitlines() if run.log.exists() else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), HEAD)
    return "it printed nothing" if last.startswith(HEAD) else last


def train_unfinished(
    runs: list[PlannedRun],
    launcher: Launcher,
    parallel: int | None,
    here: bool,
    console: Console,
    stop: Stop = never,
) -> list[Failure]:
    """Trains all unfinished runs of a comparison, and returns those that failed.

    Args:
        runs: all runs of the comparison.
        launcher: starts each run.
        parallel: number of runs at a time. Default: one here, all elsewhere.
        here: whether the runs share the cores of this machine.
        console: console for reports.
        stop: asked several times a second; when it returns True, the runs in training end.
    """
    rest = [run for run in runs if not run.finished()]
    if not rest:
        return []
    at_a_time = parallel or (1 if here else len(rest))
    threads = max(1, available_cores() // at_a_time) if here else None
    for run in rest:
        write_recipe(run, threads)
    begun = sum(run.begun() for run in rest)
    finished = len(runs) - len(rest)
    how = f"{begun} started, {len(rest) - begun} not started; {at_a_time} at a time"
    say(console, f"{len(runs)} runs: {finished} finished, {how}")
    try:
        return train_all(runs, launcher, at_a_time, console, stop)
    except KeyboardInterrupt:
        say(console, "codistill: stopped; the same command continues")
        raise
