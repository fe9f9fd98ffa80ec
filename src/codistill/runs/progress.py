"""Progress of a training: a line per epoch, and live bars in a terminal."""

import datetime
import time
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from codistill.data.batch import Batch
from codistill.messages import say
from codistill.runs.history import epochs_in
from codistill.runs.results import best_epoch, classifiers_of, preferred
from codistill.runs.run import Run
from codistill.training.record import Record
from codistill.training.stopping import Stop, never

_SECONDS_BEFORE_THE_FIRST = 30.0  # from line to line, before the first epoch has ended
_SECONDS_BETWEEN = 600.0  # and afterwards


def follow(run: Run, console: Console, label: str, stop: Stop = never) -> None:
    """Trains a run until its end or `stop`, with a line per epoch, and live bars in a terminal.

    Elsewhere a line says from time to time how far an epoch is.
    """
    names = run.names_kept()
    with live_bars(console) as progress:
        watch = _Watch(run, console, label, progress)
        history = run.history()
        for record in run.train(watch, stop):
            history.append(record)
            watch.epoch_ended()
            best = _best_so_far(history, names)
            line = f"epoch {record['epoch']}/{run.config.epochs}  {one_line(record)}"
            if run.config.data.workers is not None:  # images are read while it trains
                line += f"; waiting for images: {100 * watch.waiting:.0f} %"
            line += best
            say(console, watch.label + line)


class _Watch:
    """Shows the progress of a run's steps: the watch that `Run.train` takes.

    Args:
        run: the run that is trained.
        console: console for the lines, where it is no terminal.
        label: beginning of the lines, or nothing.
        progress: bars, where the console is a terminal.

    Attributes:
        waiting: the share of the last epoch's time in which a step waited for its batch.
    """

    waiting = 0.0

    def __init__(self, run: Run, console: Console, label: str, progress: Progress):
        self._console, self._progress = console, progress
        self.label = f"{label}: " if label else ""
        self._epochs, self._epoch = run.config.epochs, epochs_in(run.path) + 1
        self._every = len(run.data().train)
        self._whole = progress.add_task("", total=self._epochs * self._every)
        self._part = progress.add_task("steps", total=self._every)
        self._steps, self._began = 0, time.monotonic()
        self._said, self._pause = self._began, _SECONDS_BEFORE_THE_FIRST

    def __call__(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        before = (self._epoch - 1) * self._every
        self._progress.update(self._whole, description=f"epoch {self._epoch}", completed=before)
        self._progress.reset(self._part, total=len(batches))  # type: ignore[arg-type]
        began = asked = time.monotonic()
        waited = 0.0
        for step, batch in enumerate(batches, 1):
            waited += time.monotonic() - asked
            yield batch
            self._steps += 1
            self._progress.advance(self._whole)
            self._progress.advance(self._part)
            if time.monotonic() - self._said >= self._pause and not self._console.is_terminal:
                self._tell(step)
            asked = time.monotonic()
        self.waiting = waited / max(asked - began, 1e-9)

    def epoch_ended(self) -> None:
        """Called when the record of an epoch is there."""
        self._epoch += 1
        self._said, self._pause = time.monotonic(), _SECONDS_BETWEEN

    def _tell(self, step: int) -> None:
        self._said = time.monotonic()
        to_come = (self._epochs - self._epoch + 1) * self._every - step
        left = round((self._said - self._began) / self._steps * to_come)
        say(
            self._console,
            f"{self.label}epoch {self._epoch}/{self._epochs}, step {step:,} of {self._every:,}; "
            f"about {datetime.timedelta(seconds=left)} left",
        )


def live_bars(console: Console, speed_estimate_period: float = 30.0) -> Progress:
    """Bars with counts and times, shown if the console is a terminal.

    Args:
        console: the console to draw on.
        speed_estimate_period: seconds of progress from which the remaining time is estimated.
    """
    return Progress(
        TextColumn("{task.description}", markup=False),  # with names of folders
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        speed_estimate_period=speed_estimate_period,
    )


def one_line(record: Record) -> str:
    """An epoch in a line: accuracies, on held-out images if there are any, loss and speed."""
    loss = sum(value for key, value in record.items() if key.startswith("loss/"))
    speed = f"loss {loss:.3f}; {record['images_per_second']:,.0f} images/s"
    if not classifiers_of(record):  # not evaluated
        return speed
    split = "val" if any(key.startswith("val/") for key in record) else "test"
    scores = [f"{name} {record[f'{split}/top1/{name}']:.1f}" for name in classifiers_of(record)]
    return f"{split} top-1 {', '.join(scores)}; {speed}"


def _best_so_far(history: list[Record], names: list[str]) -> str:
    """The student that did best on the held-out images so far; empty without such images."""
    epoch = best_epoch(history, names)
    if epoch is None:
        return ""
    name = preferred(history[epoch - 1], names)
    return f"; best so far {name} {history[epoch - 1][f'val/top1/{name}']:.1f} in epoch {epoch}"
