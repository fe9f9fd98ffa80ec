"""What a training shows: a line per epoch, notes on its settings, a live bar in a terminal."""

from collections.abc import Iterable, Iterator

from rich.box import SIMPLE_HEAD
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
from rich.table import Table
from rich.text import Text

from codistill.data.batch import Batch
from codistill.runs.remarks import warnings_about
from codistill.runs.results import classifiers_of
from codistill.runs.run import Run
from codistill.training.record import Record


def train_with_display(run: Run) -> int:
    """Trains a run to its end, shows how it goes, and then what came out."""
    console = Console(stderr=True)
    for warning in warnings_about(run):
        note = f"codistill: note: {warning}"
        console.print(note, style="yellow", highlight=False, markup=False, soft_wrap=True)
    try:
        follow(run, console, str(run.path))
    except (KeyboardInterrupt, OSError):
        resume = f"codistill: stopped; go on with: codistill train --resume {run.path}"
        console.print(resume, highlight=False, markup=False, soft_wrap=True)
        raise
    from codistill.reporting.tables import print_table
    from codistill.runs.finished import load_results

    print_table(load_results([run.path]))
    print(f"run:     {run.path}")
    print(f"student: {run.path / 'student.safetensors'}")
    return 0


def follow(run: Run, console: Console, label: str) -> None:
    """Trains a run to its end: a line per epoch, and a live bar below where there is a terminal."""
    epochs = run.config.epochs
    with live_bars(console) as progress:
        whole = progress.add_task("epochs", total=epochs, completed=len(run.history()))
        part = progress.add_task("steps", total=None)

        def watch(batches: Iterable[Batch]) -> Iterator[Batch]:
            return _advance(progress, part, batches)

        for record in run.train(watch):
            line = f"{label}: epoch {record['epoch']}/{epochs}  {one_line(record)}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
            progress.update(whole, completed=int(record["epoch"]))


def live_bars(console: Console, speed_estimate_period: float = 30.0) -> Progress:
    """Bars with counts and times, where there is a terminal.

    Args:
        console: where to.
        speed_estimate_period: seconds that the time left is estimated from.
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
    """An epoch in a line: accuracy of every classifier, on the images held out if there are any."""
    split = "val" if any(key.startswith("val/") for key in record) else "test"
    scores = [f"{name} {record[f'{split}/top1/{name}']:.1f}" for name in classifiers_of(record)]
    return f"{split} top-1 {', '.join(scores)}; {record['images_per_second']:,.0f} images/s"


def print_metrics(title: str, metrics: dict[str, float]) -> None:
    """A table of what `evaluate` returned."""
    table = Table("classifier", title=Text(title), title_justify="left", box=SIMPLE_HEAD)
    for column in ("top-1 %", "top-5 %", "NLL"):
        table.add_column(column, justify="right")
    for key in metrics:
        kind, _, name = key.partition("/")
        if kind == "top1":
            top1, top5, nll = (metrics[f"{m}/{name}"] for m in ("top1", "top5", "nll"))
            table.add_row(name, f"{top1:.2f}", f"{top5:.2f}", f"{nll:.4f}")
    Console().print(table)


def _advance(progress: Progress, task: TaskID, batches: Iterable[Batch]) -> Iterator[Batch]:
    progress.reset(task, total=len(batches))  # type: ignore[arg-type]
    for batch in batches:
        yield batch
        progress.advance(task)
