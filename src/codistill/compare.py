"""`codistill compare`: trains what a file asks for, and tells what helped."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from codistill import files
from codistill.analysis.differences import Difference, differences, missing_seeds
from codistill.comparing.comparison import Comparison, read_comparison
from codistill.comparing.launchers import launcher_named
from codistill.comparing.planned_runs import PlannedRun, plan_runs, strangers
from codistill.comparing.schedule import Failure, train_unfinished
from codistill.comparing.sections import NOT_AT_HAND
from codistill.differences_report import print_differences, write_differences
from codistill.errors import InputError
from codistill.importing import scipy_stats
from codistill.page import How, require_page, write_page
from codistill.report import write_report
from codistill.runs.finished import Result, load_result, version_notes
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
    _refuse_missing_extras()
    if report_only:
        runs = plan_runs(comparison, folder, check=False)
        _report(comparison, runs, folder, how)
        return 0
    console = Console(stderr=True)
    starts = launcher_named(launcher, comparison, folder)
    runs = plan_runs(comparison, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        files.write_text(folder / "comparison.yaml", file.read_text())
        failures = train_unfinished(runs, starts, parallel, launcher != "slurm", console)
        if any(run.finished() for run in runs):
            _report(comparison, runs, folder, how)
    for failure in failures:
        _tell(failure, console)
    return 1 if failures else 0


def _report(
    comparison: Comparison, runs: Sequence[PlannedRun], folder: Path, how: How | None
) -> None:
    """Writes and prints what the finished runs say."""
    results: dict[str, dict[int, Result]] = {}
    for row in comparison.rows:
        results[row.label] = {
            run.seed: load_result(run.path)
            for run in runs
            if run.row.label == row.label and run.finished()
        }
    groups = {label: list(by_seed.values()) for label, by_seed in results.items() if by_seed}
    if not groups:
        raise InputError(f"{folder} holds no finished run of {comparison.file}")
    _refuse_other_images(groups)
    found = differences(results, {row.label: row.baseline for row in comparison.rows})
    notes = _notes(comparison, runs, results, found, folder)
    figures = comparison.published
    published = {label: figure["value"] for label, figure in figures.items()}
    sources = [
        f"{n}: {f['value']} ({f['source']}). {f['differs']}"
        for n, f in figures.items()
        if f["value"] != NOT_AT_HAND
    ]
    if comparison.note:
        notes.insert(0, comparison.note)
    written = write_report(groups, folder, published, comparison.note)
    written += write_differences(found, notes, sources, folder)
    alone = {row.label for row in comparison.rows if row.baseline == row.label}
    print_differences({k: v for k, v in groups.items() if k in alone}, found, notes)
    written += write_page(
        groups,
        folder,
        how,
        differences=found,
        published=published,
        sources=sources,
        notes=notes,
    )
    for path in written:
        print(path)


def _notes(
    comparison: Comparison,
    runs: Sequence[PlannedRun],
    results: Mapping[str, Mapping[int, Result]],
    found: Sequence[Difference],
    folder: Path,
) -> list[str]:
    """What the reader has to know of the tables."""
    notes = missing_seeds(results, comparison.seeds)
    if any(d.statistics.n == 1 for d in found):
        notes.append("one pair (n = 1) has no interval and cannot be tested")
    every = [result for by_seed in results.values() for result in by_seed.values()]
    notes += version_notes({"this comparison": every})
    notes += [
        f"runs/{name} belongs to no row of the file: left as it is, and out of the tables"
        for name in strangers(runs, folder)
    ]
    return notes


def _refuse_other_images(groups: dict[str, list[Result]]) -> None:
    first = next(iter(groups.values()))[0]
    for results in groups.values():
        for result in results:
            if result.fingerprint != first.fingerprint:
                raise InputError(f"{result.path} and {first.path} saw different images")
            if result.test_images != first.test_images:
                raise InputError(
                    f"{result.path} and {first.path} were tested on different images: give all "
                    "the same data.test_fraction and data.split_seed"
                )


def _refuse_missing_extras() -> None:
    """What the report needs is looked for before hours of training."""
    scipy_stats()
    require_page()


def _tell(failure: Failure, console: Console) -> None:
    line = f"codistill: failed: {failure.run.name}: {failure.reason}; log: {failure.run.log}"
    console.print(line, highlight=False, markup=False, soft_wrap=True)
