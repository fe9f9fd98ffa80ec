"""The papers' tables that come with codistill: comparisons, each with a short version.

A table's file is a comparison's (docs/compare.md) with four more keys:

    about     one line
    source    the paper
    differs   differences from the paper: what it does not state, or what is not available
    short     settings, networks, seeds and methods' options of `--scale short`
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from codistill.comparing.comparison import Comparison, parse_comparison, text_of
from codistill.comparing.sections import NOT_AT_HAND
from codistill.errors import InputError, did_you_mean
from codistill.settings.config import Config
from codistill.settings.recipes import as_settings, laid_over, read_recipe, recipes
from codistill.settings.yaml_files import read_yaml

Scale = Literal["paper", "short"]

TRAINING_IMAGES = {"cifar10": 50_000, "cifar100": 50_000, "cinic10": 90_000, "imagenet": 1_281_167}
_ABOUT = ("about", "source", "differs", "short")
_SHORT = {"settings", "networks", "seeds", "methods"}


@dataclass(frozen=True)
class PublishedTable:
    """A paper's table.

    Attributes:
        name: name of its file.
        about: one line.
        source: the paper.
        differs: differences from the paper.
        comparison: the comparison, as its file holds it.
        short: parts that the short version replaces.
    """

    name: str
    about: str
    source: str
    differs: str
    comparison: dict[str, Any]
    short: dict[str, Any]

    def at(
        self, scale: Scale, seeds: Sequence[int] | None, over: Mapping[str, Any]
    ) -> "ScaledTable":
        """The comparison at a scale.

        Args:
            scale: "paper" or "short".
            seeds: seeds in place of the table's.
            over: settings that win over the table's: {"device": "cuda", "data": {"root": ...}}.
        """
        tree = dict(self.comparison)
        settings = as_settings(tree.get("settings") or {}, self.name)
        methods = {label: dict(options) for label, options in tree["methods"].items()}
        if scale == "short":
            settings = laid_over(settings, as_settings(self.short["settings"], self.name))
            for label, options in self.short.get("methods", {}).items():
                methods[label] |= options
            tree |= {key: self.short[key] for key in ("networks", "seeds")}
            tree.pop("published", None)
        tree |= {"settings": laid_over(settings, over), "methods": methods}
        tree |= {"seeds": list(seeds)} if seeds else {}
        every = laid_over(read_recipe(tree["recipe"]), tree["settings"])
        plan = ScaledTable(
            self, scale, tree, every.get("epochs", Config().epochs), every["data"]["name"]
        )
        tree["note"] = plan.note()
        return plan


@dataclass(frozen=True)
class ScaledTable:
    """A table at a scale.

    Attributes:
        table: the table.
        scale: "paper" or "short".
        tree: the comparison, as its file holds it.
        epochs: epochs of every run.
        data: name of its data set.
    """

    table: PublishedTable
    scale: Scale
    tree: dict[str, Any]
    epochs: int
    data: str

    @property
    def images(self) -> int | None:
        """The largest number of images in an epoch; None if it depends on your images."""
        return TRAINING_IMAGES.get(self.data)

    def comparison(self) -> Comparison:
        """The comparison; at the paper's scale it also lists the figures that we do not have."""
        comparison = parse_comparison(self.tree, self.table.name)
        if self.scale == "short":
            return comparison
        published = with_gaps(comparison.published, [row.label for row in comparison.rows])
        text = text_of(self.tree | {"published": published})
        return replace(comparison, published=published, text=text)

    def size(self) -> str:
        """Its length in words."""
        images = f"{self.images:,} images" if self.images else "your images"
        seeds = len(self.tree["seeds"])
        rows = len(self.tree["networks"]) * (1 + len(self.tree["methods"]))  # and the bar
        return (
            f"{rows * seeds} runs ({seeds} seed{'s' if seeds > 1 else ''}) of {self.epochs} epochs "
            f"of {images}"
        )

    def note(self) -> str:
        """The note in the report, so that its numbers are not mistaken for the paper's."""
        if self.scale == "paper":
            return f"{self.table.about}, after {self.table.source}. {self.table.differs.strip()}"
        paper = self.table.at("paper", None, {})
        here = "" if paper.data == self.data else " of other images"
        now, was = (", ".join(map(str, plan.tree["networks"])) for plan in (self, paper))
        return (
            f"SHORT VERSION of {self.table.about}: {now} for {self.epochs} epochs{here} in place "
            f"of {was} for {paper.epochs}. It shows that everything runs. Its numbers are not "
            "comparable to published ones, and say nothing about the paper"
        )


def tables() -> dict[str, PublishedTable]:
    """All tables that come with codistill, by name."""
    some = next(iter(recipes().values()), None)
    files = sorted((some.parent / "tables").glob("*.yaml")) if some else []
    return {file.stem: _read(file) for file in files}


def table_named(name: str) -> PublishedTable:
    """The table of a name."""
    if name not in (known := tables()):
        raise InputError(f"there is no table {name!r}: {did_you_mean(name, known)}")
    return known[name]


def with_gaps(published: Mapping[str, Any] | None, labels: Sequence[str]) -> dict[str, Any]:
    """Published figures of all rows; NOT_AT_HAND for rows without one."""
    none = {"value": NOT_AT_HAND, "source": "-", "differs": "-"}
    return {label: (published or {}).get(label, none) for label in labels}


def _read(file: Path) -> PublishedTable:
    tree = read_yaml(file)
    if missing := [key for key in _ABOUT if not tree.get(key)]:
        raise InputError(f"{file}: {', '.join(missing)} has to be there")
    if unknown := tree["short"].keys() - _SHORT:
        raise InputError(f"{file}: short: {min(unknown)!r} is not known")
    about, source, differs, short = (tree.pop(key) for key in _ABOUT)
    return PublishedTable(file.stem, about, source, differs, tree, short)
