"""The records of a run's epochs: history.jsonl is read again, history.csv is for spreadsheets."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from codistill import files
from codistill.errors import InputError
from codistill.training.record import Record


def read_history(run: Path) -> list[Record]:
    """The records of all completed epochs.

    Raises:
        InputError: history.jsonl is damaged.
    """
    path = run / "history.jsonl"
    try:
        lines = path.read_text().splitlines() if path.exists() else []
        history = [json.loads(line) for line in lines]
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}") from error
    for i, record in enumerate(history, 1):
        numbers = isinstance(record, dict) and all(type(x) in (int, float) for x in record.values())
        if not numbers:
            raise InputError(f"{path} is damaged: line {i} is no record of numbers")
    return history


def write_history(run: Path, history: Sequence[Record]) -> None:
    """Writes both files."""
    lines = "".join(json.dumps(record) + "\n" for record in history)
    files.write_text(run / "history.jsonl", lines)
    table = io.StringIO()
    columns = dict.fromkeys(key for record in history for key in record)
    writer = csv.DictWriter(table, list(columns))
    writer.writeheader()
    writer.writerows(history)
    files.write_text(run / "history.csv", table.getvalue())
