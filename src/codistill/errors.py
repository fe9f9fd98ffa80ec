"""Errors that the user can repair: the command shows each as one line, without a traceback."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """Something the user gave cannot be used. The message says what, where, and what to do."""


class MissingExtraError(ImportError):
    """An optional package is not installed. The message has the line that installs it."""

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(f"{purpose} needs {package}: pip install 'codistill[{extra}]'")


def reason(error: BaseException) -> str:
    """The first line of an error's message, or the error's type if it has no message."""
    return (str(error) or type(error).__name__).splitlines()[0]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint at the nearest known name, or the list of all names if none is near."""
    known = sorted(known)
    near = [name for name in known if word and (name.startswith(word) or name.endswith(f".{word}"))]
    near = near or get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"


def require_positive(**values: int | float) -> None:
    """Raises InputError if a named value is not above 0."""
    for name, value in values.items():
        if not value > 0:
            raise InputError(f"{name} is {value}: it has to be above 0")


def require_not_negative(**values: int | float) -> None:
    """Raises InputError if a named value is below 0."""
    for name, value in values.items():
        if not value >= 0:
            raise InputError(f"{name} is {value}: it has to be 0 or more")


def require_fraction(**values: int | float) -> None:
    """Raises InputError if a named value is not from 0 to 1."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise InputError(f"{name} is {value}: give a number from 0 to 1")


def require_one_of(name: str, value: object, choices: Iterable[object]) -> None:
    """Raises InputError if a value is none of the choices."""
    if value not in (choices := list(choices)):
        raise InputError(f"{name} is {value!r}: give {' or '.join(map(repr, choices))}")
