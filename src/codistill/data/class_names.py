"""Names of classes that look alike, and classes that only one split has."""

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping

from codistill.errors import InputError
from codistill.messages import option, quoted


def _alike(name: str) -> str:
    """What is left of a name without what is easily overlooked."""
    if number := re.fullmatch(r"(-?)0*(\d+)", name):  # not as an int: a name may be long
        return number[1] + number[2]
    plain = unicodedata.normalize("NFKC", name).casefold()
    plain = "".join(c for c in plain if unicodedata.category(c) != "Cf")
    return re.sub(r"[\s_-]+", " ", plain).strip()


def alike_notes(classes: Iterable[str]) -> list[str]:
    """Remarks on classes whose names differ in case, spaces or the writing of letters only."""
    groups: dict[str, list[str]] = {}
    for name in classes:
        groups.setdefault(_alike(name), []).append(name)
    return [
        f"classes of nearly the same name: {quoted(names)}"
        for names in groups.values()
        if len(names) > 1
    ]


def refuse_other_classes(present: Mapping[str, Collection[str]], places: Mapping[str, str]) -> None:
    """Raises InputError if a split has none of the classes of train, or the same by another name.

    Args:
        present: split -> names of the classes that it has images of.
        places: split -> where its images lie; "train/" names a folder.
    """
    train = present.get("train")
    if not train:
        return
    known = {_alike(name): name for name in train}
    for split, classes in present.items():
        new = sorted(set(classes) - set(train))
        for name in new:
            if (other := known.get(_alike(name))) is not None:
                raise InputError(
                    f"{split} has a class '{name}' and train a class '{other}', which would be two "
                    "classes: give them one name"
                )
        if new and len(new) == len(classes):
            folder, end, _ = places.get("train", "").partition("/")
            name = folder if end else "NAME"
            raise InputError(
                f"{split} has the classes {quoted(new)}, and train has others: "
                f"{quoted(sorted(train))}: give the same names, or leave {split} out: name the "
                f"splits that count, as in {option('--data.splits', f'train={name}')}"
            )
