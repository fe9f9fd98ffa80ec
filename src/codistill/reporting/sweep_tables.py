"""The table of a sweep: held-out accuracy of each value, printed, in Markdown, as CSV."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from codistill import files
from codistill.analysis.sweeps import Sweep, in_words
from codistill.reporting.tables import spread_of
from codistill.reporting.text import csv_table, markdown_table, text_table, wrapped

_HEAD = ("method", "values", "held-out top-1 %", "chosen", "n")
_CAPTION = (
    "Top-1 on the held-out images after the last epoch, of the {}: mean ± standard deviation over "
    "n seeds. The best mean is chosen, separately for each method and the networks alone, and only "
    "the chosen values are in the other tables."
)


def print_sweeps(sweeps: Sequence[Sweep], in_short: str) -> None:
    """Prints the table for a terminal of 80 columns, and what was chosen."""
    rows: list[list[str]] = []
    for s in sweeps:
        rows += [[s.method], *([f"  {row[0]}", *row[1:]] for row in _rows(s))]
    print(text_table(("  values", *_HEAD[2:]), rows, _caption(sweeps)))
    print(wrapped(in_short) + "\n")


def write_sweeps(sweeps: Sequence[Sweep], in_short: str, folder: Path) -> list[Path]:
    """Writes sweep.md and sweep.csv; returns their paths.

    Args:
        sweeps: one or more sweeps.
        in_short: what was chosen, which comes first.
        folder: folder to write to.
    """
    rows = [[s.method, *row] for s in sweeps for row in _rows(s)]
    text = f"{in_short}\n\n{markdown_table(_HEAD, rows)}\n\n{_caption(sweeps)}\n"
    files.write_text(folder / "sweep.md", text)
    names = list(dict.fromkeys(name for s in sweeps for name in s.chosen.values))
    head = ["method", *names, "seed", "held_out_top1", "chosen"]
    lines = [
        [s.method, *(t.values.get(n, "") for n in names), seed, f"{accuracy:.4f}"]
        + [int(t is s.chosen)]
        for s in sweeps
        for t in s.tried
        for seed, accuracy in zip(s.seeds, t.accuracies, strict=True)
    ]
    files.write_text(folder / "sweep.csv", csv_table(head, lines))
    return [folder / "sweep.md", folder / "sweep.csv"]


def _rows(s: Sweep) -> Iterator[list[str]]:
    for t in s.tried:
        mark = "chosen" if t is s.chosen else ""
        yield [in_words(t.values), spread_of(list(t.accuracies)), mark, str(len(s.seeds))]


def _caption(sweeps: Sequence[Sweep]) -> str:
    return _CAPTION.format(sweeps[0].of)
