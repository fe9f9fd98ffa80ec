"""The columns of paths and labels of a text table; or columns of 0 and 1, one for each class."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from codistill.data.readers.columns import (
    LABELS,
    PERHAPS_LABELS,
    Columns,
    pick_images,
    pick_labels,
)
from codistill.data.readers.decode import SUFFIXES
from codistill.data.readers.text_tables import Table
from codistill.errors import InputError
from codistill.messages import quoted

_PATHS = (
    "path",
    "file",
    "file_name",
    "filename",
    "filepath",
    "file_path",
    "image_path",
    "image_file",
    "image_name",
    "image",
    "img",
    "img_path",
    "images",
    "image_id",
    "id",
)
_NO, _YES = {"0", "0.0", "false"}, {"1", "1.0", "true"}
ONE_HOT = "columns of 0 and 1"  # stands for a column of labels, where each class has its own


def columns_of(
    table: Table, file: Path, given: Columns, divides: str | None
) -> tuple[str, str | None]:
    """The columns of paths and labels; without any that may be labels, None."""
    content = {
        name: [value for value in values if value is not None]
        for name, values in table.items()
        if name and name != divides and not name.startswith("Unnamed: ")
    }
    others = dict.fromkeys(table, "text")
    texts = {n: v for n, v in content.items() if all(isinstance(x, str) for x in v)}
    paths = [name for name, values in texts.items() if _are_paths(values)]
    named = [name for name in texts if name.casefold() in _PATHS and name != given.label]
    path = (
        pick_images(paths or named, others, given.image, file, "paths of images", _PATHS)
        if given.image not in texts
        else given.image
    )
    kinds: dict[str, str | None] = {}
    rest = {}
    for name, values in content.items():
        if name == path or (name in paths and name != given.label):
            continue
        if any(isinstance(value, list | dict) for value in values):
            rest[name] = "lists"
            continue
        numeric = all(isinstance(x, int | float) or _is_number(x) for x in values if x != "")
        kinds[name] = "numbers" if numeric else "text"
    if not kinds and not rest and given.label is None:
        return path, None
    if given.label is None and not rest and (classes := _one_hot(kinds, content, file)):
        table[ONE_HOT] = _by_column(classes, table)
        return path, ONE_HOT
    return path, pick_labels(kinds, {path: "paths", **rest}, (), given.label, file)


def _one_hot(
    kinds: Mapping[str, str | None], content: Mapping[str, Sequence[object]], file: Path
) -> list[str]:
    """The columns of which each is a class and has 1 where an image is of it; [] if none are.

    Raises:
        InputError: an image is of several of them, or of none.
    """
    known = {name.strip().casefold() for name in kinds} & {*LABELS, *PERHAPS_LABELS}
    if known or any(kind == "text" and not _are_flags(content[n]) for n, kind in kinds.items()):
        return []
    columns = [name for name in kinds if _are_flags(content[name])]
    if len(columns) < 2:
        return []
    sums = [sum(map(_flag, row)) for row in zip(*(content[name] for name in columns), strict=True)]
    wrong = next((row for row, ones in enumerate(sums) if ones != 1), None)
    if wrong is None:
        return columns
    if len(columns) < len(kinds):
        return []
    raise InputError(
        f"{file}, row {wrong + 1}: of {quoted(columns)}, which have 0 and 1 as columns of classes "
        f"have, {sums[wrong]} are 1: give each image one class"
    )


def _by_column(classes: Sequence[str], table: Table) -> list[str | None]:
    """The class of each row: the name of the column that has 1."""
    rows = zip(*(table[name] for name in classes), strict=True)
    return [classes[[*map(_flag, row)].index(1)] for row in rows]


def _are_flags(values: Sequence[object]) -> bool:
    return all(_flag(value) >= 0 for value in values)


def _flag(value: object) -> int:
    """0 or 1, as number or text; -1 for anything else."""
    text = str(value).strip().casefold()
    return 0 if text in _NO else 1 if text in _YES else -1


def _are_paths(values: Sequence[str | None]) -> bool:
    """Whether most values end in the suffix of an image."""
    images = sum(os.path.splitext((v or "").strip())[1].lower() in SUFFIXES for v in values)
    return images > len(values) / 2


def _is_number(text: str | None) -> bool:
    try:
        float(text or "nan")
    except ValueError:
        return False
    return True
