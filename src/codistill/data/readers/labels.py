"""From labels as people write them, numbers or names, to classes; and the columns they stand in."""

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from codistill.errors import InputError, did_you_mean
from codistill.messages import counted, option, quoted

LABELS = ("label", "labels", "fine_label")  # a column of this name is that of the labels
PERHAPS_LABELS = (
    "class",
    "classes",
    "target",
    "targets",
    "cls",
    "category",
    "class_name",
    "class_label",
    "class_id",
    "label_name",
    "category_name",
    "category_id",
)
IMAGES = ("image", "img", "jpg", "png", "jpeg", "picture", "photo", "image_bytes", "images")

LABEL_OPTION = "--data.label_column"
_COLUMNS = 20  # of a table that a message names
_MANY = 10  # rows: of fewer it cannot be said whether values repeat
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


class Columns(NamedTuple):
    """The columns of a table that the user names; None: found by name and type.

    Attributes:
        label: column of labels.
        image: column of images.
    """

    label: str | None = None
    image: str | None = None


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


def unlabelled_notes(counts: Mapping[str, int], what: str = "rows") -> list[str]:
    """Remarks on images that are left out because they have no label, by split."""
    return [
        f"{what}{'' if split == 'all' else f' of {split}'} without a label, which are not used: "
        f"{count:,}"
        for split, count in counts.items()
        if count
    ]


def pick_labels(
    kinds: Mapping[str, str | None],
    others: Mapping[str, str],
    numbered: Collection[str],
    given: str | None,
    where: object,
    likely: Sequence[str] = LABELS,
) -> str:
    """The column of labels: the one that is given, or the one that can be meant.

    Args:
        kinds: name of each column that may hold labels -> "text" or "numbers".
        others: name of each other column -> what it holds, for messages.
        numbered: those of `kinds` whose numbers have class names.
        given: `data.label_column`.
        where: names the table in messages.
        likely: names that settle it.

    Raises:
        InputError: none is, or several are; or the given one cannot be.
    """
    if given is not None:
        return _given("labels", "label_column", list(kinds), others, given, where)
    by_name = {name.strip().casefold(): name for name in reversed(list(kinds))}
    sure = next((by_name[name] for name in likely if name in by_name), None)
    if sure is not None:
        return sure
    if wrong := next((n for n in others if n.strip().casefold() in likely), None):
        return _given("labels", "label_column", list(kinds), others, wrong, where)
    perhaps = [by_name[name] for name in PERHAPS_LABELS if name in by_name]
    for several in (perhaps, list(numbered)):
        if len(several) == 1:
            return several[0]
    texts = [name for name, kind in kinds.items() if kind == "text"]
    if not perhaps and not numbered and len(kinds) == len(texts) == 1:
        return texts[0]
    columns = quoted([*kinds, *others], _COLUMNS)
    if not kinds:
        raise InputError(
            f"{where} has the columns {columns}: there has to be one of labels, whole numbers or "
            "text"
        )
    named = perhaps or list(numbered) or list(kinds)
    raise InputError(
        f"{where} has the columns {columns}: any of {quoted(named, _COLUMNS)} may be the labels: "
        f"say which, such as {option(LABEL_OPTION, named[0])}"
        if len(named) > 1
        else f"{where} has the columns {columns}: if {named[0]!r} is the labels, and no "
        f"measurement or number of an image, give {option(LABEL_OPTION, named[0])}"
    )


def pick_images(
    kinds: Collection[str],
    others: Mapping[str, str],
    given: str | None,
    where: object,
    what: str = "image bytes",
    likely: Sequence[str] = IMAGES,
) -> str:
    """The column of images: the one that is given, has a likely name, or is the only one.

    Args:
        kinds: names of the columns that hold images.
        others: name of each other column -> what it holds, for messages.
        given: `data.image_column`.
        where: names the table in messages.
        what: what the column holds, for messages.
        likely: names that settle it, the likeliest first.
    """
    if given is not None:
        return _given(what, "image_column", list(kinds), others, given, where)
    by_name = {name.strip().casefold(): name for name in reversed(list(kinds))}
    found = next((by_name[name] for name in likely if name in by_name), None)
    if found is not None or len(kinds) == 1:
        return found or next(iter(kinds))
    columns = quoted(dict.fromkeys([*kinds, *others]), _COLUMNS)
    if not kinds:
        raise InputError(f"{where} has the columns {columns}: there has to be one of {what}")
    raise InputError(
        f"{where} has the columns {columns}: any of {quoted(kinds, _COLUMNS)} may be the images: "
        f"say which, such as {option('--data.image_column', next(iter(kinds)))}"
    )


def _given(
    what: str, option: str, kinds: list[str], others: Mapping[str, str], given: str, where: object
) -> str:
    if given in kinds:
        return given
    if given in others:
        needed = "labels are whole numbers or names" if what == "labels" else f"{what} are needed"
        raise InputError(f"{where}: the column {given!r} holds {others[given]}: {needed}")
    known = kinds or list(others)
    raise InputError(
        f"{where} has no column of {what} called {given!r} (data.{option}): "
        f"{did_you_mean(given, known)}"
    )


def refuse_unlikely(column: str, given: str | None, labels: Sequence[int], where: object) -> None:
    """Raises InputError if a column that nobody named has a value of its own for most rows."""
    counts = Counter(labels)
    if given is None and column.strip().casefold() not in (*LABELS, *PERHAPS_LABELS):
        alone = sum(count == 1 for count in counts.values())
        if len(labels) >= _MANY and alone > len(labels) / 2:
            raise InputError(
                f"{where}: the column {column!r} has {len(counts):,} values in {len(labels):,} "
                f"rows: if it is the labels, give {option(LABEL_OPTION, column)}"
            )
