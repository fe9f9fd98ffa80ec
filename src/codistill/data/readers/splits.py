"""The names of splits, wherever folders, files, columns or the user name them."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath

from codistill.errors import InputError, did_you_mean
from codistill.messages import option

SPLITS = ("train", "val", "test")
OPTION = "--data.splits"
NONE = "none"  # the value of the option that says that nothing names a split

SPLIT_COLUMNS = ("split", "set", "subset", "partition", "dataset", "phase", "usage")
"""Names of a column that may say each row's split, the likeliest first."""
_FLAGS = re.compile(r"is[_ ]?(train|valid|val|validation|test)$")  # of a column of yes and no
_FEW = 5  # values of such a column
_WORDS = {
    "train": "train",
    "training": "train",
    "trn": "train",
    "trainval": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "validate": "val",
    "dev": "val",
    "devel": "val",
    "development": "val",
    "eval": "val",
    "evaluation": "val",
    "test": "test",
    "testing": "test",
    "tst": "test",
}
_ENDINGS = re.compile(r"(set|data|split|images?|imgs?|photos?)$")  # as in "testset"


def split_of(name: str) -> str:
    """The split that a word of a name says, as in "seg_test", "TrainSet" or "val2017"; or "".

    A name that says two splits says none.
    """
    humps = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    words = "".join(c if c.isalpha() else " " for c in humps).casefold().split()
    found = {_WORDS.get(word) or _WORDS.get(_ENDINGS.sub("", word)) for word in words} - {None}
    return found.pop() or "" if len(found) == 1 else ""


def is_split_name(name: str) -> bool:
    """Whether a name is the word for a split and nothing else."""
    return name.strip().casefold() in _WORDS


@dataclass(frozen=True)
class SplitNames:
    """Which names say which split.

    Attributes:
        given: name -> split, as the user says; empty: no name says a split. None: the names' words
            say it.
    """

    given: Mapping[str, str] | None = None

    @classmethod
    def parse(cls, text: str | None) -> "SplitNames":
        """The meaning of `data.splits`, such as "train=a,test=b" or "none"."""
        if text is None:
            return cls()
        if text.strip().casefold() == NONE:
            return cls({})
        given: dict[str, str] = {}
        for part in re.split(r",(?=[^,=]*=)", text):  # a name may have a comma
            split, equals, name = (piece.strip() for piece in part.partition("="))
            if not equals or not name or split not in SPLITS:
                raise InputError(
                    f"data.splits is {text!r}: give names such as train=a,val=b,test=c, or {NONE} "
                    "if nothing is divided"
                )
            if name in given:
                raise InputError(f"data.splits is {text!r}: it names {name!r} twice")
            given[name] = split
        if "train" not in given.values():
            raise InputError(f"data.splits is {text!r}: it has to name train=... too")
        return cls(given)

    def of(self, name: str) -> str:
        """The split of a name, or ""."""
        return split_of(name) if self.given is None else self.given.get(name, "")

    def of_path(self, path: PurePath) -> str:
        """The split that the last such part of a path says, or ""."""
        for part in reversed([*path.parts[:-1], path.name.partition(".")[0]]):
            if self.given is None:
                if split := split_of(part):
                    return split
                continue
            for name, split in self.given.items():
                if part == name or re.match(re.escape(name) + r"[^a-zA-Z0-9]", part):
                    return split
        return ""

    def require(self, present: Iterable[str], where: object) -> None:
        """Raises InputError if the user named what is not there.

        Args:
            present: all names that there are.
            where: names the place in the message.
        """
        present = list(present)
        for name in self.given or ():
            if name not in present:
                hint = did_you_mean(name, present) if present else "there is none"
                raise InputError(f"data.splits names {name!r}, which {where} does not have: {hint}")


def splits_of(files: list[PurePath], names: SplitNames) -> list[str]:
    """The split that each file's path names; "all" for each if none does; "" if it is not used.

    Args:
        files: paths relative to the root of the data set.
        names: which names say which split.
    """
    found = [names.of_path(file) for file in files]
    if names.given:
        for name, split in names.given.items():
            if not any(SplitNames({name: split}).of_path(file) for file in files):
                raise InputError(
                    f"data.splits names {name!r}, and no file's path begins so: there are "
                    f"{', '.join(map(str, files[:5]))}"
                )
        return ["all" if set(found) <= {"", "train"} and s else s for s in found]
    if "" in found and any(found):
        raise InputError(
            f"{files[found.index('')]} has no train, val or test in its path, "
            f"but other files have: rename or remove it, or say how the files' names begin, such "
            f"as {example(_beginnings(files))}, or give {OPTION} {NONE} if nothing is divided"
        )
    named = set(found)
    if named & {"val", "test"} and "train" not in named:
        raise InputError(
            f"there are files for {' and '.join(sorted(named))}, but none for train: say "
            f"how the files' names begin, such as {example(_beginnings(files))}, or give {OPTION} "
            f"{NONE} if nothing is divided"
        )
    return ["all"] * len(files) if named <= {"", "train"} else found


def example(values: Iterable[str]) -> str:
    """The option that says which of these values are splits, with the likeliest of them."""
    likely = sorted(values, key=lambda value: ("train", "", "val", "test").index(split_of(value)))
    parts = zip(("train", "test"), dict.fromkeys((likely[0], likely[-1])), strict=False)
    return option(OPTION, ",".join(f"{split}={value}" for split, value in parts))


def _beginnings(files: list[PurePath]) -> list[str]:
    """The names of files without what numbers them, or whole if that leaves nothing to tell."""
    names = [file.name.partition(".")[0] for file in files]
    begin = [re.sub(r"([-_]\d+(-of-\d+)?|\d+)$", "", name) for name in names]
    return begin if all(begin) and len({*begin}) > 1 else names


def _of_flags(column: str, values: Iterable[str]) -> str:
    """The option for a column such as is_valid, whose values are yes and no; or ""."""
    by_word = {value.casefold(): value for value in values}
    pairs = (("true", "false"), ("1", "0"), ("yes", "no"), ("1.0", "0.0"))
    found = next(((by_word[a], by_word[b]) for a, b in pairs if {*by_word} == {a, b}), None)
    if found is None or not (flag := _FLAGS.match(column)):
        return ""
    yes = _WORDS[flag[1]]
    no = "test" if yes == "train" else "train"
    given = {yes: found[0], no: found[1]}
    return option(OPTION, ",".join(f"{split}={given[split]}" for split in SPLITS if split in given))


def split_column(
    columns: Iterable[str],
    values_of: Callable[[str], Iterable[object]],
    names: SplitNames,
    where: object,
) -> str | None:
    """The column of a table that says each row's split, or None.

    Args:
        columns: names of the table's columns.
        values_of: gives the values of a column.
        names: which values say which split.
        where: names the table in messages.

    Raises:
        InputError: a column may say splits, but not by words for them.
    """
    present = list(columns)
    flags = [c.strip().casefold() for c in present if _FLAGS.match(c.strip().casefold())]
    for name in (*SPLIT_COLUMNS, *flags) if names.given != {} else ():
        for column in present:
            if column.strip().casefold() != name:
                continue
            values = {"" if value is None else str(value).strip() for value in values_of(column)}
            if names.given is not None:
                names.require(values, f"the column {column!r}")
                return column
            if any(map(split_of, values)):
                return column
            if 2 <= len(values) <= _FEW:
                such = _of_flags(name, values) or example(sorted(values))
                raise InputError(
                    f"{where}: the column {column!r} has {', '.join(sorted(map(repr, values)))}: "
                    f"say which are splits, such as {such}, or give {OPTION} {NONE} if it divides "
                    "nothing"
                )
    return None


def refuse_split_column(
    columns: Iterable[str], values_of: Callable[[str], Iterable[object]], where: object
) -> None:
    """Raises InputError if a column says splits, in a form in which none is read."""
    column = split_column(columns, values_of, SplitNames(), where)
    if column is not None:
        raise InputError(
            f"{where}: the column {column!r} says splits, and only that of a CSV table is read: "
            f"write a file or split for each, such as train and test, or give {OPTION} {NONE} to "
            "take all rows together"
        )
