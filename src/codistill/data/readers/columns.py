"""Which columns of a table hold images and labels: named by the user, or found by name and type."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from codistill.errors import InputError, did_you_mean
from codistill.messages import option, quoted

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


class Columns(NamedTuple):
    """The columns of a table that the user names; None: found by name and type.

    Attributes:
        label: column of labels.
        image: column of images.
    """

    label: str | None = None
    image: str | None = None


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
