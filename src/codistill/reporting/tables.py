"""Tables of runs side by side: printed, in Markdown, as CSV.

Runs on the same images that differ only in the seed (and the folder, the device, the checkpoints)
are one setting: its numbers are means and standard deviations over seeds. The test set chooses
nothing here.
"""

from collections.abc import Iterator, Mapping
from itertools import groupby
from math import isfinite
from operator import itemgetter
from pathlib import Path
from statistics import mean, stdev

from codistill import files
from codistill.reporting.curves import draw_curves
from codistill.reporting.page.setting import settings_of
from codistill.reporting.text import csv_table, markdown_table, text_table
from codistill.runs.finished import Result, code_notes
from codistill.runs.results import EPOCH_THAT_SHIPS, Metrics


def rows(settings: dict[str, list[Result]]) -> Iterator[list[str]]:
    """The table with a row for each classifier of each setting, in the columns of `COLUMNS`."""
    for label, results in settings.items():
        speed = mean(r.scores.images_per_second for r in results)
        for name in results[0].scores.last:
            last = [r.scores.last[name] for r in results]
            five = [r.last_five.get(name) for r in results]
            best = [r.scores.best_by_validation.get(name) for r in results]
            yield [
                label,
                name,
                spread_of([m["test/top1"] for m in last]),
                spread_of([m["test/top1"] for m in five if m]) if all(five) else "-",
                spread_of([m["test/top1"] for m in best if m]) if all(best) else "-",
                spread_of([m["test/top5"] for m in last]),
                spread_of([m["test/nll"] for m in last], digits=3),
                str(len(results)),
                f"{speed:,.0f}",
            ]


COLUMNS = (
    "setting",
    "classifier",
    "top-1 %",
    "last 5 %",
    "by val %",
    "top-5 %",
    "NLL",
    "n",
    "img/s",
)
_SHORT_CAPTION = (
    "On the test images after the last epoch: mean ± standard deviation over n seeds. "
    '"by val": top-1 after the epoch that the held-out images chose.'
)
CAPTION = (
    f'{_SHORT_CAPTION} "last 5": the mean of top-1 over the last five epochs, of trainings of ten '
    "epochs or more."
)

COMPARED = ("setting", "mean peer", "kept", "ensemble", "its own", "adds", "img/s", "n")
COMPARED_CAPTION = (
    "Test top-1 in %: mean ± standard deviation over n seeds. mean peer, ensemble, its own "
    "(classifiers that the method adds): after the last epoch. kept: the network in "
    f"student.safetensors, {EPOCH_THAT_SHIPS}. adds: "
    "parameters of the method beside the peers, trained (+ not trained). img/s: training speed."
)


def compared(settings: dict[str, list[Result]]) -> Iterator[list[str]]:
    """The table with a row for each setting, in the columns of `COMPARED`."""
    for label, results in settings.items():
        last = [r.scores.last for r in results]

        def spread(name: str, last: list[dict[str, Metrics]] = last) -> str:
            return spread_of([m[name]["test/top1"] for m in last])

        peers = results[0].scores.peers
        added = [n for n in last[0] if n not in (*peers, "ensemble")]
        yield [
            label,
            spread_of([mean(m[n]["test/top1"] for n in peers) for m in last]),
            spread_of([r.scores.kept_top1 for r in results]),
            spread("ensemble") if "ensemble" in last[0] else "-",
            ", ".join(f"{n} {spread(n)}" for n in added) or "-",
            _added(results[0].manifest.parameters),
            f"{mean(r.scores.images_per_second for r in results):,.0f}",
            str(len(results)),
        ]


def _added(parameters: dict[str, int]) -> str:
    frozen = parameters.get("frozen", 0)
    return f"{parameters['method']:,}" + (f" (+ {frozen:,})" if frozen else "")


def _parameters(parameters: dict[str, int], classifier: str) -> int | str:
    """Number of parameters of a classifier; empty where the run does not record it."""
    if classifier == "ensemble":
        return parameters["peers"]
    together = parameters["peers"] + parameters["method"]
    return parameters.get(classifier, "" if parameters.get("frozen") else together)


def print_table(settings: dict[str, list[Result]]) -> None:
    """Prints the table for a terminal of 80 columns, so without some columns."""
    left_out = ("setting", "last 5 %", "top-5 %")
    shown = [i for i, column in enumerate(COLUMNS) if column not in left_out]
    lines: list[list[str]] = []
    for label, of_setting in groupby(rows(settings), key=itemgetter(0)):
        lines += [[label], *(["  " + row[1], *(row[i] for i in shown[1:])] for row in of_setting)]
    head = ["  classifier", *(COLUMNS[i] for i in shown[1:])]
    print(text_table(head, lines, _SHORT_CAPTION))
    for note in code_notes(settings):
        print(f"note: {note}")


def student_lines(result: Result) -> str:
    """The file of the network that ships, its name, parameters, size and test accuracy."""
    scores, manifest = result.scores, result.manifest
    name, file = scores.kept[0], result.path / "student.safetensors"
    k = manifest.students[name]
    which = name if name == f"peer{k}" else f"{name} (peer{k})"
    facts = [
        f"{manifest.parameters[f'peer{k}'] / 1e6:.2f} M parameters",
        f"{file.stat().st_size / 1e6:.1f} MB",
        f"test top-1 {scores.kept_top1:.2f} % in epoch {scores.student.epoch}",
    ]
    network = f"{which}, {result.config.networks()[k]}: {', '.join(facts)}"
    return f"student: {file}\n         {network}"


def write_report(
    settings: dict[str, list[Result]],
    folder: Path,
    published: Mapping[str, str] | None = None,
    note: str = "",
) -> list[Path]:
    """Writes table.md, compared.md, runs.csv and curves.png; returns their paths.

    Args:
        settings: the runs of each setting, by its label.
        folder: folder to write to; it is made if it does not exist.
        published: figures of others by label, for a column of their own in compared.md.
        note: note for the readers, below each table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    all_notes = [note] * bool(note) + code_notes(settings)
    notes = "".join(f"\n\nNote: {text}." for text in all_notes)
    draw_curves(settings_of(settings), folder / "curves.png")
    text = f"{markdown_table(COLUMNS, rows(settings))}\n\n{CAPTION}{notes}\n"
    files.write_text(folder / "table.md", text)
    head, table = list(COMPARED), list(compared(settings))
    if published:
        head.append("published")
        table = [[*row, published.get(row[0], "-")] for row in table]
    text = f"{markdown_table(head, table)}\n\n{COMPARED_CAPTION}{notes}\n"
    files.write_text(folder / "compared.md", text)
    files.write_text(folder / "runs.csv", _csv(settings))
    return [folder / name for name in ("table.md", "compared.md", "runs.csv", "curves.png")]


def spread_of(values: list[float], digits: int = 2) -> str:
    """Mean ± standard deviation; the mean alone of one value, and where one is not finite."""
    centre = f"{mean(values):.{digits}f}"
    spread = len(values) > 1 and all(map(isfinite, values))
    return f"{centre} ± {stdev(values):.{digits}f}" if spread else centre


def _csv(settings: dict[str, list[Result]]) -> str:
    """Every number of the tables: one line for each seed and classifier."""
    metrics = [f"{s}/{m}" for s in ("test", "val") for m in ("top1", "top5", "nll")]
    head = ["setting", "seed", "classifier", "epochs", "parameters", *metrics]
    head += ["best_epoch", *(f"best/{m}" for m in metrics)]
    head += [*(f"last_five/{m}" for m in metrics), "images_per_second"]

    def numbers(of: Metrics) -> list[str]:
        return [f"{of[m]:.4f}" if m in of else "" for m in metrics]

    lines = []
    for label, results in settings.items():
        for r in results:
            for name, last in r.scores.last.items():
                best = r.scores.best_by_validation.get(name, {})
                count = _parameters(r.manifest.parameters, name)
                facts = [label, r.config.seed, name, r.scores.epochs, count]
                speed = f"{r.scores.images_per_second:.1f}"
                chosen = [best.get("epoch", ""), *numbers(best)]
                five = numbers(r.last_five.get(name, {}))
                lines.append([*facts, *numbers(last), *chosen, *five, speed])
    return csv_table(head, lines)
