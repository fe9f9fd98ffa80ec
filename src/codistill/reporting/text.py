"""Tables as text: for the terminal, in Markdown, as CSV."""

import csv
import io
import re
import textwrap
from collections.abc import Iterable, Sequence

from rich.cells import cell_len

from codistill.messages import printable

WIDTH = 80
"""Columns of a terminal that tables and captions are made for."""
_MARKED = re.compile(r"[\\`*|~]|\](?=\()|(?<![^\W_])_|_(?![^\W_])")
"""What Markdown takes for a mark of its own; of "]" those of links, of "_" those around words."""


def text_table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table for the terminal: the first column stands to the left, the others to the right.

    Args:
        head: names of the columns.
        rows: as long as the head. A row of a single cell is a heading, written over all columns.
        caption: text below the table.
    """
    rows = [[*map(printable, row)] for row in rows]
    cells = [head, *(row for row in rows if len(row) > 1)]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]

    def lines(row: Sequence[str]) -> str:
        if len(row) == 1:
            return wrapped(row[0], "    ")
        gaps = [" " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)]
        first, *others = zip(row, gaps, strict=True)
        return "  ".join(["".join(first), *(gap + cell for cell, gap in others)]).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    below = ["", wrapped(caption)] if caption else []
    return "\n".join([lines(head), rule, *map(lines, rows), *below])


def wrapped(text: str, indent: str = "") -> str:
    """Text in lines that fit the terminal; the second and later ones are indented."""
    return textwrap.fill(text, WIDTH - 1, subsequent_indent=indent)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown. Its cells are text and are escaped."""
    lines = [[*map(escaped, head)], ["---"] * len(head), *([*map(escaped, row)] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def csv_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as comma-separated values."""
    file = io.StringIO()
    csv.writer(file).writerows([head, *rows])
    return file.getvalue()


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    text = _MARKED.sub(r"\\\g<0>", " ".join(text.split()))
    return text.replace("<", "&lt;").replace(">", "&gt;")
