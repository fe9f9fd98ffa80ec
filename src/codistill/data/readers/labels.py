"""From labels as people write them, numbers or names, to classes."""

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from codistill.errors import InputError, did_you_mean
from codistill.messages import counted

_WHOLE = re.compile(r"-?\d{1,18}$")
_FLOATS = re.compile(r"-?\d+\.\d*$|-?\d*\.\d+$|-?\d+(\.\d*)?e[-+]?\d+$", re.IGNORECASE)
_LIST = re.compile(r"\s*[\[({].*[\])}]\s*$", re.DOTALL)
_NAN = {"nan", "-nan", "<na>"}


def label_text(value: Any) -> str | None:
    """A label as text: "3" for 3, 3.0 and "3"; None where there is no label.

    Raises:
        InputError: the value is neither a whole number nor a name.
    """
    if value is None:
        return None
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, int):  # a bool is one
        return str(value)
    if isinstance(value, float | Decimal):
        if math.isnan(value):
            return None
        if math.isfinite(value) and value == int(value):
            return str(int(value))
        raise InputError(f"{value}: labels are whole numbers or names")
    raise InputError(f"a {type(value).__name__}: labels are whole numbers or names")


def label_texts(
    values: list[Any], classes: list[str] | None, where: str, column: str, start: int
) -> list[str | None]:
    """Labels of a column as text; None for rows without a label.

    Args:
        values: a label of each row.
        classes: class names that numbers stand for, if they are known; then -1 is no label.
        where: names the table in messages.
        column: name of the column, for messages.
        start: number of the first row.
    """
    texts: list[str | None] = []
    for i, value in enumerate(values):
        if classes is not None:
            if isinstance(value, bool):
                value = int(value)
            if value == -1:
                value = None
        try:
            texts.append(label_text(value))
        except InputError as error:
            raise InputError(
                f"{where}, row {start + i}: the column {column!r} holds {error}"
            ) from error
    return texts


def written_numbers(texts: list[str | None]) -> list[str | None]:
    """Labels of a text file. Where all are numbers, "1.0" becomes "1", and "nan" no label.

    Raises:
        InputError: all are numbers, and not all are whole.
    """
    present = {text.strip() for text in texts if text is not None}
    numbers = {text for text in present if text.casefold() not in _NAN}
    fractions = {text for text in numbers if _FLOATS.match(text)}
    if not all(_WHOLE.match(text) or text in fractions for text in numbers):
        return texts
    if not numbers:
        return [None] * len(texts)
    if not fractions and numbers == present:
        return [None if text is None else text.strip() for text in texts]
    return [
        None if text is None or text.strip().casefold() in _NAN else label_text(float(text))
        for text in texts
    ]


class Numbered(NamedTuple):
    """Labels 0 to C - 1, the names of the C classes, and remarks on them."""

    labels: list[int]
    classes: list[str]
    notes: list[str]


def number_labels(
    texts: Sequence[str], names: list[str] | None, where: Callable[[int], str]
) -> Numbered:
    """Numbers labels. Where no names are known, the labels that occur are the classes.

    Args:
        texts: the label of each image: a number or a name.
        names: names of the classes that numbers stand for, if they are known.
        where: names the i-th image in a message.

    Raises:
        InputError: a label is none of the known classes, or may mean that there is none.
    """
    found = set(texts)
    whole = all(map(_WHOLE.match, found))
    if names is not None:
        return Numbered(_by_names(texts, names, whole, where), names, [])
    if not whole and (several := _names_several(found)):
        text, why = several
        raise InputError(
            f"{where(texts.index(text))}: the label is {text!r}, {why}: give each image one label"
        )
    classes = sorted(found, key=(lambda text: (int(text), text)) if whole else None)
    places = {text: i for i, text in enumerate(classes)}
    notes = []
    if whole and classes:
        low, high = int(classes[0]), int(classes[-1])
        if low == -1 and high >= 0 and len(classes) > 2:
            raise InputError(
                f"{where(texts.index('-1'))}: the label is -1, as of "
                f"{counted(texts.count('-1'), 'image')}: remove them if they have no class, or "
                "write names in place of all numbers"
            )
        if low > 1 or high - low >= len(classes):
            notes.append(
                f"the labels do not count from 0 without a gap, but go from {low} to {high}: the "
                f"{len(classes):,} that occur are the classes"
            )
    return Numbered([places[text] for text in texts], classes, notes)


def _names_several(found: Collection[str]) -> tuple[str, str] | None:
    """A label that stands for several, or for a list, and what it is; None if there is none."""
    single = {text.strip() for text in found}
    for text in sorted(found):
        if _LIST.match(text):
            return text, "a list that was written as text"
        for separator in "|;,":
            parts = [part.strip() for part in text.split(separator)]
            if len(parts) > 1 and single.issuperset(parts):
                names = " and ".join(map(repr, dict.fromkeys(parts)))
                return text, f"and there are the labels {names} too"
    shared = Counter(part.strip() for text in found if "|" in text for part in {*text.split("|")})
    for text in sorted(found):
        if "|" in text and any(shared[part.strip()] > 1 for part in text.split("|")):
            return text, "which names several classes"
    return None


def _by_names(
    texts: Sequence[str], names: list[str], whole: bool, where: Callable[[int], str]
) -> list[int]:
    """The labels' places among the known names: numbers are places themselves."""
    places = {name: i for i, name in enumerate(names)}
    if whole and not (all(text in places for text in texts) and max(map(int, texts)) >= len(names)):
        numbers = list(map(int, texts))
        for i, number in enumerate(numbers):
            if number < 0:
                raise InputError(f"{where(i)}: the label is {number}: labels count from 0")
            if number >= len(names):
                raise InputError(
                    f"{where(i)}: the label is {number}, not 0 to {len(names) - 1}, as there are "
                    f"{len(names)} classes"
                )
        return numbers
    for i, text in enumerate(texts):
        if text not in places:
            raise InputError(
                f"{where(i)}: the label is {text!r}, which is none of the {len(names)} class "
                f"names: {did_you_mean(text, names)}"
            )
    return [places[text] for text in texts]


def unlabelled_notes(counts: Mapping[str, int]) -> list[str]:
    """Remarks on images that are left out because they have no label, by split."""
    return [
        f"rows{'' if split == 'all' else f' of {split}'} without a label, which are not used: "
        f"{count:,}"
        for split, count in counts.items()
        if count
    ]
