"""The report of a comparison: tables, differences, the page."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from codistill.analysis.differences import Difference, conclusion, differences, missing_seeds
from codistill.comparing.comparison import Comparison
from codistill.comparing.planned_runs import PlannedRun, strangers
from codistill.comparing.sections import NOT_AT_HAND
from codistill.errors import InputError
from codistill.importing import optional
from codistill.reporting.difference_tables import print_differences, write_differences
from codistill.reporting.page.measure import MeasureOptions
from codistill.reporting.page.write import require_page, write_page
from codistill.reporting.tables import write_report
from codistill.runs.finished import Result, load_result, version_notes


def report_comparison(
    comparison: Comparison, runs: Sequence[PlannedRun], folder: Path, how: MeasureOptions | None
) -> None:
    """Writes and prints the report of the finished runs."""
    results: dict[str, dict[int, Result]] = {}
    for row in comparison.rows:
        results[row.label] = {
            run.seed: load_result(run.path)
            for run in runs
            if run.row.label == row.label and run.finished()
        }
    settings = {label: list(by_seed.values()) for label, by_seed in results.items() if by_seed}
    if not settings:
        raise InputError(f"{folder} holds no finished run of {comparison.name}")
    _refuse_other_images(settings)
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
    written = write_report(settings, folder, published, comparison.note)
    some = next(iter(settings.values()))[0]
    in_short = conclusion(found, some.manifest.images.get("test"))
    written += write_differences(found, notes, sources, folder, in_short)
    alone = {row.label for row in comparison.rows if row.baseline == row.label}
    print_differences({k: v for k, v in settings.items() if k in alone}, found, notes, in_short)
    written += write_page(
        settings,
        folder,
        how,
        differences=found,
        published=published,
        sources=sources,
        notes=[in_short, *notes],
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
    """Notes for the reader of the tables."""
    notes = missing_seeds(results, comparison.seeds)
    if any(d.statistics.n == 1 for d in found):
        notes.append("one pair (n = 1) has no interval and cannot be tested")
    every = [result for by_seed in results.values() for result in by_seed.values()]
    notes += version_notes({"this comparison": every})
    notes += [
        f"runs/{name} belongs to no row of the file: it is left as it is, and is not in the tables"
        for name in strangers(runs, folder)
    ]
    return notes


def _refuse_other_images(settings: dict[str, list[Result]]) -> None:
    first = next(iter(settings.values()))[0]
    for results in settings.values():
        for result in results:
            if result.manifest.fingerprint != first.manifest.fingerprint:
                raise InputError(f"{result.path} and {first.path} saw different images")
            if result.test_images != first.test_images:
                raise InputError(
                    f"{result.path} and {first.path} were tested on different images: give all "
                    "the same data.test_fraction and data.split_seed"
                )


def require_report_extras() -> None:
    """Raises MissingExtraError now, before hours of training, if the report needs a package."""
    optional("scipy.stats", "comparing runs")
    require_page()
