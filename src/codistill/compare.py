"""`codistill compare`: trains what a file asks for, and tells what helped."""

from pathlib import Path

from rich.console import Console

from codistill import files
from codistill.comparing.comparison import read_comparison
from codistill.comparing.launchers import launcher_named
from codistill.comparing.planned_runs import plan_runs
from codistill.comparing.schedule import Failure, train_unfinished
from codistill.reporting.comparison import report_comparison, require_report_extras
from codistill.reporting.page import How
from codistill.runs.folder import locked


def compare(
    file: Path,
    folder: Path,
    parallel: int | None,
    launcher: str,
    report_only: bool,
    how: How | None = None,
) -> int:
    """Trains the runs of a comparison that are not finished, and writes its report.

    Returns 0, or 1 where a run failed.

    Args:
        file: of the comparison.
        folder: of its runs and its report.
        parallel: how many runs train at a time. Default: one; on a cluster all of them.
        launcher: one of `launch.LAUNCHERS`.
        report_only: train nothing.
        how: the networks are to be measured for the page; None: not at all.
    """
    comparison = read_comparison(file)
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
        files.write_text(folder / "comparison.yaml", file.read_text())
        failures = train_unfinished(runs, starts, parallel, launcher != "slurm", console)
        if any(run.finished() for run in runs):
            report_comparison(comparison, runs, folder, how)
    for failure in failures:
        _tell(failure, console)
    return 1 if failures else 0


def _tell(failure: Failure, console: Console) -> None:
    line = f"codistill: failed: {failure.run.name}: {failure.reason}; log: {failure.run.log}"
    console.print(line, highlight=False, markup=False, soft_wrap=True)
