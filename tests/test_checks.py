"""The check of settings, on dataclasses of its own: calls of codistill are checked here anyway."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from codistill.checks import check, make, setting, typed_arguments
from codistill.errors import InputError


@dataclass
class Settings:
    size: int = 1
    share: float = setting(0.5, above=0, at_most=1)
    shares: list[float] = setting([1.0], at_least=0, numbers=1)
    kind: Literal["a", "b"] = "a"
    flag: bool | None = None
    metrics: dict[str, float | int] | None = None
    place: str | None = setting(None)
    anything: Any = None

    def __post_init__(self) -> None:
        check(self, "of.")


@dataclass
class Inner:
    size: int


@dataclass
class Outer:
    inner: Inner
    several: list[Inner]
    more: str = "-"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": 2.5}, "size is 2.5: give a whole number"),
        ({"size": "2"}, "size is '2': give a whole number"),
        ({"size": True}, "size is True: give a whole number"),
        ({"size": None}, "size is None: give a whole number"),
        ({"share": "1"}, "share is '1': give a number"),
        ({"share": 0}, "share is 0.0: it has to be above 0 and at most 1"),
        ({"share": 1.5}, "share is 1.5: it has to be above 0 and at most 1"),
        ({"share": float("nan")}, "share is nan: it has to be finite"),
        ({"shares": 1.0}, "shares is 1.0: give a list"),
        ({"shares": [1.0, 2.0]}, r"shares is \[1.0, 2.0\]: give 1 numbers"),
        ({"shares": [float("inf")]}, r"shares is \[inf\]: it has to be finite"),
        ({"shares": [-1]}, r"shares is \[-1.0\]: it has to be at least 0"),
        ({"kind": "c"}, "kind is 'c': give 'a' or 'b'"),
        ({"flag": 1}, "flag is 1: give true or false"),
        ({"metrics": {"top1": "x"}}, "metrics.top1 is 'x': give a number"),
        ({"metrics": []}, r"metrics is \[\]: give names and values"),
        ({"place": " "}, "place is empty: give a text, or leave it out"),
    ],
)
def test_what_does_not_fit_is_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=f"^of.{said}$"):
        Settings(**settings)


def test_what_fits_becomes_what_the_types_say() -> None:
    settings = Settings(share=1, shares=(1,), metrics={"epoch": 1, "top1": 0.5}, anything=3)  # type: ignore[arg-type]
    assert (type(settings.share), settings.shares) == (float, [1.0])
    assert isinstance(settings.shares, list)
    assert settings.metrics == {"epoch": 1, "top1": 0.5}
    assert type(settings.metrics["epoch"]) is int
    assert Settings().shares is not Settings().shares


def test_a_tree_becomes_dataclasses() -> None:
    tree = {"inner": {"size": 1, "new": 0}, "several": [{"size": 2}], "unknown": 3}
    assert make(Outer, tree, "file") == Outer(Inner(1), [Inner(2)])


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ([], r"it holds \[\], not names and values"),
        ({}, "it lacks inner, several"),
        ({"inner": {}, "several": []}, "it lacks size"),
        ({"inner": {"size": "1"}, "several": []}, "size is '1': give a whole number"),
        ({"inner": {"size": 1}, "several": [3]}, "it holds 3, not names and values"),
        ({"inner": {"size": 1}, "several": {}}, "several is {}: give a list"),
        ({"inner": {"size": 1}, "several": [], "more": 1}, "more is 1: give a text"),
    ],
)
def test_a_damaged_tree_is_named(tree: Any, said: str) -> None:
    with pytest.raises(InputError, match=f"^file is damaged: {said}$"):
        make(Outer, tree, "file")


class Own:
    def __init__(
        self,
        peers: object,
        rate: float = 1.0,
        sizes: Sequence[int] = (1,),
        teacher: str | Path | None = None,
        kind: Literal["a", "b"] | float = "a",
        untyped=None,  # type: ignore[no-untyped-def]  # noqa: ANN001
    ):
        pass


def test_arguments_become_what_annotations_say() -> None:
    given = {"rate": 2, "sizes": (1, 2), "teacher": "file", "kind": 0.5, "untyped": {1}, "new": []}
    found = typed_arguments(Own, given, "method.")
    assert found == given | {"sizes": [1, 2]}
    assert type(found["rate"]) is float
    assert typed_arguments(Own, {"teacher": None, "kind": 1}, "") == {"teacher": None, "kind": 1.0}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rate": None}, "rate is None: give a number"),
        ({"rate": True}, "rate is True: give a number"),
        ({"rate": 10**400}, "rate is 1000*: give a number"),
        ({"sizes": 3}, "sizes is 3: give a list"),
        ({"sizes": ["3"]}, "sizes is '3': give a whole number"),
        ({"teacher": 3}, "teacher is 3: give a text"),
        ({"kind": "c"}, "kind is 'c': give 'a' or 'b'"),
        ({"kind": None}, "kind is None: give 'a' or 'b'"),
    ],
)
def test_an_argument_of_another_type_is_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=rf"^method\.{said}$"):
        typed_arguments(Own, given, "method.")
