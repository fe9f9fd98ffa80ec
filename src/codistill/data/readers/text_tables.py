"""Tables in text files: CSV with any usual delimiter, TSV, JSON Lines."""

import csv
import io
import json
import os
from collections import Counter
from pathlib import Path

from codistill.data.readers.decode import SUFFIXES
from codistill.errors import InputError

_DELIMITERS = ",;\t|"

Table = dict[str, list[str | None]]


def read_table(file: Path) -> Table:
    """The columns of a text file, each with a value for every row; None where there is none.

    Raises:
        InputError: the file is no table, or not UTF-8.
    """
    text = text_of(file)
    if not text.strip():
        raise InputError(f"{file} is empty")
    if file.suffix.lower() == ".jsonl":
        return _json_lines(text, file)
    lines = text.lstrip().splitlines()
    if lines[0][0] in "[{":
        raise InputError(
            f"{file} is JSON: write a table with columns such as path,label, or a .jsonl with a "
            'line such as {"path": "1.jpg", "label": "cat"} for each image'
        )
    words = lines[0].split(" ")
    blank = len(words) > 1 and not any(delimiter in lines[0] for delimiter in _DELIMITERS)
    if blank and os.path.splitext(words[0])[1].lower() in SUFFIXES:
        raise InputError(f"{file} has blanks between paths and labels: put commas or tabs there")
    delimiter = max(_DELIMITERS, key=lambda delimiter: _columns_by(lines, delimiter))
    try:
        rows = list(csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True))
    except csv.Error as error:
        raise InputError(f"{file} is no table: {error}") from error
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    head = [cell.strip() for cell in rows[0]]
    if any(os.path.splitext(cell)[1].lower() in SUFFIXES for cell in head):
        head = [f"column {i + 1}" for i in range(len(head))]  # there is no line of names
    else:
        rows = rows[1:]
    twice = [name for name, count in Counter(head).items() if count > 1 and name]
    if twice:
        raise InputError(f"{file} has two columns {twice[0]!r}: rename one of them")
    for number, row in enumerate(rows):
        if len(row) > len(head) and any(cell.strip() for cell in row[len(head) :]):
            raise InputError(
                f"{file}, row {number + 1} has {len(row)} values, and there are {len(head)} "
                "columns: put values with a delimiter in them in quotes"
            )
    return {name: [row[i] if i < len(row) else None for row in rows] for i, name in enumerate(head)}


def text_of(file: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 with its mark; marks are left out.

    Raises:
        InputError: it is neither.
    """
    content = file.read_bytes()
    if content[:2] == b"\x1f\x8b":
        raise InputError(f"{file} is compressed: unpack it first, as by gunzip")
    if content[:4] in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"):
        raise InputError(f"{file} is a spreadsheet or an archive: save it as CSV, or unpack it")
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 ({error.reason}): save it as UTF-8") from error


def _columns_by(lines: list[str], delimiter: str) -> tuple[bool, int]:
    """Whether a delimiter gives the first lines as many columns as each other, and how many."""
    widths = [len(row) for row in csv.reader(lines[:20], delimiter=delimiter) if row]
    return widths[0] > 1 and len({*widths}) == 1, widths[0]


def _json_lines(text: str, file: Path) -> Table:
    rows = []
    for number, line in enumerate(text.splitlines()):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{file}, line {number + 1} is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise InputError(f"{file}, line {number + 1} has no names and values")
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}
