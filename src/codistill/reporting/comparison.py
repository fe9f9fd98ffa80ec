"""The report of a comparison: tables, differences, the page."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean

from codistill.analysis.differences import Difference, conclusion, differences, missing_seeds
from codistill.analysis.sweeps import Sweep, choice_in_words, sweep
from codistill.comparing.comparison import Comparison, Row
from codistill.comparing.planned_runs import PlannedRun, strangers
from codistill.comparing.sections import NOT_AT_HAND
from codistill.errors import InputError
from codistill.importing import optional
from codistill.reporting.difference_tables import print_differences, write_differences
from codistill.reporting.page.measure import MeasureOptions
from codistill.reporting.page.sections.differences import Compared
from codistill.reporting.page.write import require_page, write_page
from codistill.reporting.sweep_tables import print_sweeps, write_sweeps
from codistill.reporting.tables import write_report
from codistill.runs.finished import Result, code_notes, in_common, load_result


def report_comparison(
    comparison: Comparison, runs: Sequence[PlannedRun], folder: Path, how: MeasureOptions | None
) -> None:
    """Writes and prints the report of the finished runs."""
    results: dict[str, dict[int, Result]] = {}
    for row in comparison.rows:
        finished = [r for r in runs if r.row.label == row.label and r.finished()]
        of_row = in_common([load_result(run.path) for run in finished])
        results[row.label] = {r.config.seed: r for r in of_row}
    every = {label: list(by_seed.values()) for label, by_seed in results.items() if by_seed}
    if not every:
        raise InputError(f"{folder} holds no finished run of {comparison.name}")
    _refuse_other_images(every)
    sweeps, chosen = _choose(comparison, results)
    settings = {row.label: every[row.label] for row in chosen.values() if row.label in every}
    baselines = {r.label: chosen[r.baseline].label for r in chosen.values() if r.baseline in chosen}
    found = differences({label: results[label] for label in baselines}, baselines)
    notes = _notes(comparison, runs, results, found, chosen, folder)
    figures = comparison.published
    published = {label: figure["value"] for label, figure in figures.items()}
    sources = [
        f"{n}: {f['value']} ({f['source']}). {f['differs']}"
        for n, f in figures.items()
        if f["value"] != NOT_AT_HAND
    ]
    if comparison.note:
        notes.insert(0, comparison.note)
    images = next(iter(every.values()))[0].manifest.images
    in_short = conclusion(found, images.get("test"), _accuracy_alone(settings, baselines))
    written = []
    if sweeps:
        choice = choice_in_words(sweeps, images["val"])
        written += write_sweeps(sweeps, choice, folder)
        print_sweeps(sweeps, choice)
        notes.insert(0, choice)
    written += write_report(settings, folder, published, comparison.note)
    written += write_differences(found, notes, sources, folder, in_short)
    alone = {label for label, baseline in baselines.items() if baseline == label}
    below = notes[1:] if sweeps else notes  # the choice is below its own table
    print_differences({k: v for k, v in settings.items() if k in alone}, found, below, in_short)
    written += write_page(
        settings,
        folder,
        how,
        compared=Compared(found, baselines, in_short),
        published=published,
        sources=sources,
        notes=notes,
    )
    for path in written:
        print(path)


def _choose(
    comparison: Comparison, results: Mapping[str, Mapping[int, Result]]
) -> tuple[list[Sweep], dict[str, Row]]:
    """What each method's held-out images chose, and the row of each method that is reported.

    Without a sweep these are all rows. A method whose sweep is not finished has none.
    """
    sweeps, chosen = [], {}
    for method in dict.fromkeys(row.method for row in comparison.rows):
        rows = {row.label: row for row in comparison.rows if row.method == method}
        if len(rows) == 1:
            chosen[method] = next(iter(rows.values()))
        elif found := sweep(method, [(n, row.values, results[n]) for n, row in rows.items()]):
            sweeps.append(found)
            chosen[method] = rows[found.chosen.label]
    return sweeps, chosen


def _accuracy_alone(
    settings: Mapping[str, Sequence[Result]], baselines: Mapping[str, str]
) -> float | None:
    """Test top-1 in % of the networks alone: mean of their peers, seeds and rows; None without."""
    alone = {label for label, baseline in baselines.items() if label == baseline}
    runs = [r for label in alone & settings.keys() for r in settings[label]]
    values = [r.scores.accuracy("last", r.student_peer or "mean peer") for r in runs]
    return mean([v for v in values if v is not None]) if any(values) else None


def _notes(
    comparison: Comparison,
    runs: Sequence[PlannedRun],
    results: Mapping[str, Mapping[int, Result]],
    found: Sequence[Difference],
    chosen: Iterable[str],
    folder: Path,
) -> list[str]:
    """Notes for the reader of the tables."""
    notes = missing_seeds(results, comparison.seeds)
    chosen = {*chosen}
    notes += [
        f"{method}: no seed is finished with every value of the sweep, so none is chosen yet"
        for method in dict.fromkeys(row.method for row in comparison.rows)
        if method not in chosen
    ]
    if any(d.statistics.n == 1 for d in found):
        notes.append("one pair (n = 1) has no interval and cannot be tested")
    every = [result for by_seed in results.values() for result in by_seed.values()]
    notes += code_notes({"this comparison": every})
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
