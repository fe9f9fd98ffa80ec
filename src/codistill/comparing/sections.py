"""Reads and checks the sections of a comparison's file, one by one; see docs/compare.md."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from codistill.errors import InputError, MissingExtraError, did_you_mean
from codistill.settings.arguments import of_another_kind
from codistill.settings.config import Config
from codistill.settings.data_config import DataConfig
from codistill.settings.recipes import as_settings, laid_over, read_recipe

OF_AN_ENTRY = ("peers", "shared")
"""Settings that may differ between rows, beside the method and the network."""
_ELSEWHERE = {"method": "methods", "network": "networks", "seed": "seeds", "out": "--out"}

_OTHER_IMAGES = "its values would be measured on other images"
_NOT_SWEPT = {
    **{name: f"it has a place of its own: {place}" for name, place in _ELSEWHERE.items()},
    "peers": "list methods with other peers, such as three: {name: dml, peers: 3}",
    "student": "list networks",
    "data": "give one setting of it, such as data.min_scale",
    **dict.fromkeys(("data.name", "data.root", "data.split_seed"), _OTHER_IMAGES),
    **dict.fromkeys(("data.val_fraction", "data.test_fraction", "data.splits"), _OTHER_IMAGES),
    **dict.fromkeys(("data.label_column", "data.image_column"), _OTHER_IMAGES),
}
_NO_MATTER = "it changes no result"
_HELP = "`codistill train --help`"

NOT_AT_HAND = "not at hand"
"""The value of a published figure that exists, but that we do not have."""

_T = TypeVar("_T")


class Problems:
    """Collects the problems of a comparison, to report all of them at once."""

    def __init__(self, name: str):
        self.name = name
        self.found: list[str] = []

    def add(self, problem: str) -> None:
        if problem not in self.found:
            self.found.append(problem)

    def of(self, read: Callable[..., _T], *arguments: Any) -> _T | None:
        """The result of `read`; None if it raises, and then the problem is noted."""
        try:
            return read(*arguments)
        except (InputError, MissingExtraError, OSError) as error:
            self.add(str(error))
            return None

    def raise_any(self) -> None:
        raise_all(self.name, self.found)


def raise_all(where: str, problems: list[str]) -> None:
    """Raises one InputError with all problems, unless there are none."""
    if len(problems) == 1:
        raise InputError(f"{where}: {problems[0]}")
    if problems:
        numbered = "; ".join(f"({i}) {problem}" for i, problem in enumerate(problems, 1))
        raise InputError(f"{where}: {len(problems)} problems: {numbered}")


def settings_in(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of all rows: those of the recipe, with the comparison's own over them."""
    settings: dict[str, Any] = {}
    recipe = tree.get("recipe")
    if recipe is not None:
        settings = read_recipe(str(recipe))
    own = tree.get("settings") or {}
    if not isinstance(own, dict):
        raise InputError(f"settings is {own!r}: give settings, such as epochs: 10")
    own = as_settings(own, "settings")
    for key in _ELSEWHERE.keys() & own.keys():
        raise InputError(f"settings: {key!r} has a place of its own: {_ELSEWHERE[key]}")
    if of_another_kind(settings.get("data", {}).get("name"), own.get("data", {}).get("name")):
        settings.pop("data")
    return laid_over(settings, own)


def seeds_in(seeds: Any) -> list[int]:
    if (
        not isinstance(seeds, list)
        or not seeds
        or not all(type(seed) is int and seed >= 0 for seed in seeds)
        or len(set(seeds)) < len(seeds)
    ):
        raise InputError(f"seeds are {seeds!r}: give each once, such as [0, 1, 2]")
    return seeds


def networks_in(networks: Any, settings: dict[str, Any]) -> list[dict[str, Any]]:
    if networks is None:
        return [{"network": settings.get("network", Config().network)}]
    if not isinstance(networks, list) or not networks:
        raise InputError(f"networks are {networks!r}: give a list, such as [resnet8]")
    found = [{"network": n} if isinstance(n, str) else n for n in networks]
    for network in found:
        if not isinstance(network, dict) or not isinstance(network.get("network"), str):
            raise InputError(f"networks: {network!r} is none: give a name, or network: NAME")
        if unknown := network.keys() - {"network", *OF_AN_ENTRY}:
            raise InputError(
                f"networks: {min(unknown)!r} is the same for all: it belongs to settings; beside "
                "the network, peers and shared may stand here"
            )
        network["network"] = ",".join(name.strip() for name in network["network"].split(","))
    names = [network["network"] for network in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"networks: {twice} is given twice")
    return found


def methods_in(methods: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(methods, dict) or not methods:
        raise InputError("methods are missing: give a label and options of each, such as dml: {}")
    found = {}
    for label, entry in methods.items():
        if not isinstance(label, str) or not slug(label) or "\n" in label:
            raise InputError(
                f"methods: the label {label!r} cannot be used: give a name of one line"
            )
        entry = {"name": entry} if isinstance(entry, str) else entry or {}
        if not isinstance(entry, dict) or not isinstance(entry.get("name", ""), str):
            raise InputError(f"methods: {label} is {entry!r}: give options, such as {{name: ffl}}")
        found[label] = {"name": label} | entry
    return found


def sweep_in(sweep: Any) -> dict[str, list[Any]]:
    """The values of each setting of a sweep."""
    if not isinstance(sweep, dict):
        raise InputError(f"sweep is {sweep!r}: give settings with values, such as lr: [0.03, 0.1]")
    settings = {**{f.name: f for f in fields(Config)}}
    settings |= {f"data.{f.name}": f for f in fields(DataConfig)}
    for name, values in sweep.items():
        if not isinstance(values, list) or len({*map(repr, values)}) < max(2, len(values)):
            raise InputError(f"sweep: {name} is {values!r}: give two values or more, each once")
        if name in _NOT_SWEPT or (
            name in settings and not settings[name].metadata.get("recipe", True)
        ):
            raise InputError(f"sweep: {name!r} cannot be swept: {_NOT_SWEPT.get(name, _NO_MATTER)}")
        if name not in settings and not str(name).startswith("method."):
            hint = did_you_mean(str(name), [*settings, "method.OPTION"], _HELP)
            raise InputError(f"sweep: {name!r} is not known: {hint}")
    return sweep


def published_in(published: Any, labels: Iterable[str]) -> dict[str, dict[str, str]]:
    if not isinstance(published, dict):
        raise InputError(f"published is {published!r}: give a figure for each label")
    for label, figure in published.items():
        if label not in (labels := list(labels)):
            raise InputError(f"published: {label!r} is no row: {did_you_mean(str(label), labels)}")
        if not isinstance(figure, dict) or figure.keys() != {"value", "source", "differs"}:
            raise InputError(
                f"published: {label} is {figure!r}: give value, source, and how its recipe differs "
                "from this one (differs)"
            )
    return {name: {k: str(v) for k, v in f.items()} for name, f in published.items()}


def slug(text: str) -> str:
    """The text as part of a file's name: lower case, with _ in place of other characters."""
    return re.sub(r"[^\w.+-]+", "_", text.lower()).strip("_.")
