"""Progress of a training: a line per epoch, and live bars in a terminal."""

from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from codistill.data.batch import Batch
from codistill.messages import say
from codistill.runs.history import epochs_in
from codistill.runs.results import classifiers_of
from codistill.runs.run import Run
from codistill.training.record import Record
from codistill.training.stopping import Stop, never


def follow(run: Run, console: Console, label: str, stop: Stop = never) -> None:
    """Trains a run until its end or `stop`, with a line per epoch, and live bars in a terminal."""
    epochs = run.config.epochs
    with live_bars(console) as progress:
        whole = progress.add_task("epochs", total=epochs, completed=epochs_in(run.path))
        part = progress.add_task("steps", total=None)

        def watch(batches: Iterable[Batch]) -> Iterator[Batch]:
            return _advance(progress, part, batches)

        for record in run.train(watch, stop):
            line = f"{label}: epoch {record['epoch']}/{epochs}  {one_line(record)}"
            say(console, line)
            progress.update(whole, completed=int(record["epoch"]))


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
    """An epoch in a line: accuracy of every classifier, on held-out images if there are any."""
    speed = f"{record['images_per_second']:,.0f} images/s"
    if not classifiers_of(record):  # not evaluated
        loss = sum(value for key, value in record.items() if key.startswith("loss/"))
        return f"loss {loss:.3f}; {speed}"
    split = "val" if any(key.startswith("val/") for key in record) else "test"
    scores = [f"{name} {record[f'{split}/top1/{name}']:.1f}" for name in classifiers_of(record)]
    return f"{split} top-1 {', '.join(scores)}; {speed}"


def _advance(progress: Progress, task: TaskID, batches: Iterable[Batch]) -> Iterator[Batch]:
    progress.reset(task, total=len(batches))  # type: ignore[arg-type]
    for batch in batches:
        yield batch
        progress.advance(task)
