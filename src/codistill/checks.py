"""One check for every dataclass of settings, and for the JSON files of runs."""

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from codistill.errors import InputError, require_one_of

_LIMITS = {
    "above": operator.gt,
    "at_least": operator.ge,
    "below": operator.lt,
    "at_most": operator.le,
}
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}

_LONGEST = 1000  # bits of a whole number that a float can hold

_T = TypeVar("_T")


def setting(default: Any, **facts: Any) -> Any:
    """A field of settings.

    Args:
        default: the default.
        facts: `above`, `at_least`, `below` and `at_most` limit a number, or each of several;
            `numbers` says how many a list has; `recipe=False` says that runs which differ in it are
            still runs of one recipe.
    """
    facts = {"recipe": True} | facts
    if isinstance(default, list):
        return field(default_factory=lambda: [*default], metadata=facts)
    return field(default=default, metadata=facts)


def check(settings: Any, prefix: str = "") -> None:
    """Checks every field of a dataclass, and makes whole numbers floats where floats are asked for.

    A field made by `setting` must also be finite, within its limits, and no blank text.

    Args:
        settings: the dataclass, as its `__post_init__` has it.
        prefix: stands before the names of its fields in messages.

    Raises:
        InputError: names the field, its value, and what it has to be.
    """
    hints = get_type_hints(type(settings))
    for f in fields(settings):
        name, given = prefix + f.name, getattr(settings, f.name)
        value = _typed(given, hints[f.name], name)
        if value is not given:
            object.__setattr__(settings, f.name, value)
        if f.metadata and value is not None:
            _check_limits(value, f.metadata, name)


def typed_arguments(function: Any, values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Arguments of a function or a class, in the form that its annotations ask for.

    Args:
        function: the function or class.
        values: arguments by name. Those without an annotation stay as they are.
        prefix: stands before names in messages.

    Raises:
        InputError: names the first value that is of another type.
    """
    try:
        hints = get_type_hints(function.__init__ if isinstance(function, type) else function)
    except Exception:  # annotations of others may name what cannot be imported
        hints = {}
    return {k: _typed(v, hints.get(k, Any), prefix + k) for k, v in values.items()}


def make(kind: type[_T], tree: Any, where: Path | str) -> _T:
    """Makes a dataclass of a tree of JSON. Keys without a field are left out.

    Args:
        kind: the dataclass.
        tree: a dict of its fields.
        where: the file that holds the tree, for messages.

    Raises:
        InputError: the tree lacks a field, or a field is of another type.
    """
    try:
        return _made(kind, tree)
    except InputError as error:
        raise InputError(f"{where} is damaged: {error}") from error


def _made(kind: Any, tree: Any) -> Any:
    if not isinstance(tree, dict):
        raise InputError(f"it holds {tree!r}, not names and values")
    needed = [f.name for f in fields(kind) if f.default is f.default_factory is MISSING]
    if lacks := [name for name in needed if name not in tree]:
        raise InputError(f"it lacks {', '.join(lacks)}")
    known = {f.name: tree[f.name] for f in fields(kind) if f.name in tree}
    hints = {name: hint for name, hint in get_type_hints(kind).items() if name in known}
    nested = {name: _nested(hint, known[name]) for name, hint in hints.items()}
    return kind(**{name: _typed(nested[name], hint, name) for name, hint in hints.items()})


def _nested(hint: Any, value: Any) -> Any:
    """The value, with dicts turned into dataclasses where its type asks for one or for a list."""
    if is_dataclass(hint):
        return _made(hint, value)
    if get_origin(hint) is list and is_dataclass(get_args(hint)[0]) and isinstance(value, list):
        return [_made(get_args(hint)[0], v) for v in value]
    return value


def _typed(value: Any, hint: Any, name: str) -> Any:
    """The value in the form that its type asks for: 1 as a float, a tuple as a list.

    Args:
        value: as given.
        hint: bool, int, float, str, Path, Any, a dataclass, or a Literal, list, dict or union of
            these. Others take any value.
        name: of the field, for messages.
    """
    kind, arguments = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        return _typed_union(value, arguments, name)
    if kind is Literal:
        require_one_of(name, value, arguments)
    elif kind in (list, tuple, Sequence):
        if not isinstance(value, list | tuple):
            raise InputError(f"{name} is {value!r}: give a list")
        return [_typed(v, (arguments or (Any,))[0], name) for v in value]
    elif kind is dict:
        if not isinstance(value, dict):
            raise InputError(f"{name} is {value!r}: give names and values")
        return {k: _typed(v, (*arguments, Any)[1], f"{name}.{k}") for k, v in value.items()}
    elif kind is float and type(value) is int and value.bit_length() <= _LONGEST:
        return float(value)
    elif kind is Path and isinstance(value, str | Path):
        return Path(value)
    elif (kind in (*_WORDS, Path) or is_dataclass(kind)) and type(value) is not kind:
        raise InputError(f"{name} is {value!r}: give {_WORDS.get(kind, f'a {hint.__name__}')}")
    return value


def _typed_union(value: Any, kinds: Sequence[Any], name: str) -> Any:
    """The value in the form of one of several types: its own, or else the first that takes it."""
    if value is None and NoneType in kinds:
        return None
    first: InputError | None = None
    for kind in sorted((k for k in kinds if k is not NoneType), key=lambda k: type(value) is not k):
        try:
            return _typed(value, kind, name)
        except InputError as error:
            first = first or error
    raise first or InputError(f"{name} is {value!r}: leave it out")


def _check_limits(value: Any, facts: Any, name: str) -> None:
    several = value if isinstance(value, list) else [value]
    if "numbers" in facts and len(several) != facts["numbers"]:
        raise InputError(f"{name} is {value}: give {facts['numbers']} numbers")
    if isinstance(value, str) and not value.strip():
        raise InputError(f"{name} is empty: give a text, or leave it out")
    numbers = [x for x in several if isinstance(x, int | float)]
    if not all(map(math.isfinite, numbers)):
        raise InputError(f"{name} is {value}: it has to be finite")
    limits = {limit: facts[limit] for limit in _LIMITS if limit in facts}
    if not all(_LIMITS[limit](x, bound) for limit, bound in limits.items() for x in numbers):
        words = [f"{limit.replace('_', ' ')} {bound}" for limit, bound in limits.items()]
        raise InputError(f"{name} is {value}: it has to be {' and '.join(words)}")
