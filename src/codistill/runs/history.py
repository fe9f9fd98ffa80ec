"""The records of a run's epochs: history.jsonl is read again, history.csv is for spreadsheets."""

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path

from codistill import files
from codistill.errors import InputError
from codistill.training.record import Record

HISTORY = "history.jsonl"


def read_history(run: Path) -> list[Record]:
    """The records of all completed epochs.

    Raises:
        InputError: history.jsonl is damaged.
    """
    path = run / HISTORY
    lines = files.read_text(path).splitlines() if path.exists() else []
    history = []
    for i, line in enumerate(lines, 1):
        record = files.parse_json(line, path)
        numbers = isinstance(record, dict) and all(type(x) in (int, float) for x in record.values())
        if not numbers:
            raise InputError(f"{path} is damaged: line {i} is no record of numbers")
        history.append(record)
    return history


def epochs_in(run: Path) -> int:
    """The number of records in history.jsonl, whatever they hold."""
    try:
        return (run / HISTORY).read_bytes().count(b"\n")
    except OSError:
        return 0


def digest_of(history: Sequence[Record]) -> str:
    """SHA-256 of a history, hexadecimal."""
    return hashlib.sha256(_lines(history).encode()).hexdigest()


def write_history(run: Path, history: Sequence[Record]) -> None:
    """Writes both files."""
    files.write_text(run / HISTORY, _lines(history))
    table = io.StringIO()
    columns = dict.fromkeys(key for record in history for key in record)
    writer = csv.DictWriter(table, list(columns))
    writer.writeheader()
    writer.writerows(history)
    files.write_text(run / "history.csv", table.getvalue())


def _lines(history: Sequence[Record]) -> str:
    return "".join(json.dumps(record) + "\n" for record in history)
