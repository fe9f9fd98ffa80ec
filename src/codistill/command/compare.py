"""`codistill compare`: trains what a file asks for, and reports what helped."""

from pathlib import Path
from typing import TYPE_CHECKING

from codistill.command.options import (
    Parser,
    add_launch_options,
    add_out,
    add_page_options,
    measure_options,
)
from codistill.command.stopping import Stopping
from codistill.files import place_of

if TYPE_CHECKING:
    from codistill.comparing.comparison import Comparison
    from codistill.reporting.page.measure import MeasureOptions


def main(argv: list[str]) -> int:
    """`codistill compare FILE`."""
    stop = Stopping()
    parser = Parser(
        prog="codistill compare",
        description="Trains methods x networks x seeds and the networks alone, with all other "
        "settings equal, and reports what helped and what hurt. Runs that are finished are not "
        "trained again; interrupted runs continue.",
    )
    parser.add_argument("file", help="comparison in YAML; docs/compare.md describes the format")
    add_out(parser, "folder of the runs and the report (default: runs/NAME of the file)")
    add_launch_options(parser)
    add_page_options(parser)
    options = parser.parse_args(argv)
    how = measure_options(options)
    stop.end_in_time(options.max_time)

    from codistill.comparing.comparison import read_comparison

    file = place_of(options.file)
    folder = place_of(options.out) if options.out else Path("runs", file.stem)
    parallel, launcher, report_only = options.parallel, options.launcher, options.report_only
    return compare(read_comparison(file), folder, parallel, launcher, report_only, stop, how)


def compare(
    comparison: "Comparison",
    folder: Path,
    parallel: int | None,
    launcher: str,
    report_only: bool,
    stop: Stopping,
    how: "MeasureOptions | None" = None,
) -> int:
    """Trains the runs of a comparison that are not finished, and writes its report.

    Returns the exit status: 0, 1 if a run failed, or that of `stop`.

    Args:
        comparison: what is compared.
        folder: folder of its runs and its report.
        parallel: number of runs that train at a time. Default: one; on a cluster all of them.
        launcher: one of `launchers.LAUNCHERS`.
        report_only: whether nothing is trained.
        stop: ends the training in time.
        how: how the networks are measured for the page; None: not at all.
    """
    from rich.console import Console

    from codistill import files
    from codistill.comparing.launchers import launcher_named
    from codistill.comparing.planned_runs import plan_runs
    from codistill.comparing.schedule import train_unfinished
    from codistill.messages import say
    from codistill.reporting.comparison import report_comparison, require_report_extras
    from codistill.runs.folder import locked

    require_report_extras()
    if report_only:
        runs = plan_runs(comparison, folder, check=False)
        report_comparison(comparison, runs, folder, how)
        return 0
    console = Console(stderr=True)
    starts = launcher_named(launcher, comparison, folder)
    runs = plan_runs(comparison, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        files.write_text(folder / "comparison.yaml", comparison.text)
        here = launcher != "slurm"
        with stop.on_signals():
            failures = train_unfinished(runs, starts, parallel, here, console, stop)
        if stop.reason and not all(run.finished() for run in runs):
            say(console, f"codistill: {stop.reason}: stopped; the same command continues")
            return stop.status
        if any(run.finished() for run in runs):
            report_comparison(comparison, runs, folder, how)
    for failure in failures:
        line = f"codistill: failed: {failure.run.name}: {failure.reason}; log: {failure.run.log}"
        say(console, line)
    return 1 if failures else 0
