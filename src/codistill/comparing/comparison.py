"""A comparison: methods x networks x seeds, with all other settings equal.

It needs no data, and PyTorch only for the options of methods.
"""

import dataclasses
import inspect
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from codistill.comparing.sections import (
    OF_AN_ENTRY,
    Problems,
    methods_in,
    networks_in,
    published_in,
    seeds_in,
    settings_in,
    slug,
    sweep_in,
)
from codistill.errors import InputError, MissingExtraError, did_you_mean
from codistill.files import read_text
from codistill.importing import refuse_code
from codistill.settings.arguments import config_of
from codistill.settings.config import Config
from codistill.settings.recipes import as_settings, laid_over
from codistill.settings.yaml_files import read_yaml

BASELINE = "independent"
_KEYS = (
    "recipe",
    "settings",
    "networks",
    "seeds",
    "methods",
    "sweep",
    "published",
    "slurm",
    "note",
)


@dataclass(frozen=True)
class Row:
    """One setting of a comparison, for all seeds.

    Attributes:
        label: the method's label in the file, the values of a sweep, and the network if there are
            several.
        config: the settings with the first seed.
        baseline: method of the row that this one is compared with; a baseline has its own.
        place: method, values and network in the names of its runs' folders.
        method: the label without the values of a sweep.
        values: the values of a sweep, by the settings' names.
    """

    label: str
    config: Config
    baseline: str
    place: str
    method: str
    values: dict[str, Any] = field(default_factory=dict)

    def folder(self, seed: int) -> str:
        """The name of a run's folder, made of method, network and seed."""
        return f"{self.place}_seed{seed}"


@dataclass(frozen=True)
class Comparison:
    """A comparison.

    Attributes:
        name: path of its file, or name of a table, for messages.
        text: content of its file, which is kept beside the runs.
        rows: the baselines (networks trained alone), then the methods.
        seeds: seeds of every row.
        published: published figures by label: value, source, differences of the recipe.
        slurm: parameters of submitit's executor.
        note: note for readers of its report.
        sweep: values of the settings of a sweep, of which the held-out images choose.
    """

    name: str
    text: str
    rows: list[Row]
    seeds: list[int]
    published: dict[str, dict[str, str]] = field(default_factory=dict)
    slurm: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    sweep: dict[str, list[Any]] = field(default_factory=dict)

    def with_text(self, text: str) -> "Comparison":
        """The comparison, with this text as its file."""
        return dataclasses.replace(self, text=text)


def read_comparison(file: Path, trust_code: bool = True) -> Comparison:
    """The comparison in a file; see `parse_comparison`."""
    comparison = parse_comparison(read_yaml(file), str(file), trust_code)
    return comparison.with_text(read_text(file))  # with its comments


def parse_comparison(tree: Any, name: str, trust_code: bool = True) -> Comparison:
    """The comparison in a tree of settings.

    Args:
        tree: content of a comparison's file.
        name: its name, for messages.
        trust_code: whether methods, networks and loggers may name code to import.

    Raises:
        InputError: lists all problems.
    """
    if not isinstance(tree, dict):
        raise InputError(f"{name} is no comparison: it has to hold methods and seeds")
    problems = Problems(name)
    for key in tree:
        if key not in _KEYS:
            problems.add(f"{key!r} is not known: {did_you_mean(str(key), _KEYS)}")
    settings = problems.of(settings_in, tree) or {}
    seeds = problems.of(seeds_in, tree.get("seeds")) or []
    networks = problems.of(networks_in, tree.get("networks"), settings) or []
    methods = problems.of(methods_in, tree.get("methods")) or {}
    sweep = problems.of(sweep_in, tree.get("sweep") or {}) or {}
    problems.raise_any()
    if not trust_code:
        listed = [*(n["network"] for n in networks), str(settings.get("loggers", ""))]
        names = [*(entry["name"] for entry in methods.values()), *",".join(listed).split(",")]
        refuse_code(names, name)
    rows = _rows(methods, networks, settings, sweep, seeds[0], problems)
    published = problems.of(published_in, tree.get("published") or {}, [r.label for r in rows])
    slurm = tree.get("slurm") or {}
    if not isinstance(slurm, dict):
        problems.add(f"slurm is {slurm!r}: give parameters, such as timeout_min: 240")
    note = tree.get("note") or ""
    if not isinstance(note, str):
        problems.add(f"note is {note!r}: give a text")
    problems.raise_any()
    return Comparison(name, text_of(tree), rows, seeds, published or {}, slurm, note, sweep)


def text_of(tree: dict[str, Any]) -> str:
    """The content of the file of a comparison."""
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def _rows(
    methods: dict[str, dict[str, Any]],
    networks: list[dict[str, Any]],
    settings: dict[str, Any],
    sweep: dict[str, list[Any]],
    seed: int,
    problems: Problems,
) -> list[Row]:
    """The baselines, then every method with every network and all values of a sweep.

    Rows that are the same because a network sets peers or shared appear once.
    """
    for name in sweep:
        if not any(name in _swept(sweep, entry, {}) for entry in methods.values()):
            problems.add(f"sweep: none of {', '.join(methods)} takes {name!r}, or all give it")
    baselines: dict[str, Row] = {}
    rows: list[Row] = []
    for network in networks:
        of_network = slug(network["network"].replace(",", "+"))
        suffix = f", {network['network']}" if len(networks) > 1 else ""
        usual = network.get("peers", settings.get("peers", Config().peers))
        for label, entry in methods.items():
            for values in _grid(sweep, entry, network):
                where = f"methods: {_with_values(label, values)}{suffix}"
                config = problems.of(_config, entry, network, settings, seed, where, values)
                if config is None:
                    continue
                of_peers = "" if config.peers == usual else f" x{config.peers}"
                alone = {"name": BASELINE, "peers": config.peers, "shared": 0}
                of_all = {k: v for k, v in values.items() if k != "shared" and k[:7] != "method."}
                name = f"{BASELINE}{of_peers}"
                key = f"{_with_values(name, of_all)}{suffix}"
                if key not in baselines:
                    bar = _config(alone, network | alone, settings, seed, BASELINE, of_all)
                    baselines[key] = _row(name, of_all, suffix, of_network, bar, f"{name}{suffix}")
                baseline = baselines[key]
                row = _row(label, values, suffix, of_network, config, baseline.method)
                same = [r for r in (baseline, *rows) if r.config == config]
                if not same:
                    rows.append(row)
                elif same[0].label != row.label and not network.keys() & {*OF_AN_ENTRY}:
                    problems.add(f"{where}: it is the same as {same[0].label!r}: leave it out")
    _refuse_doubles([*baselines.values(), *rows], problems)
    return [*baselines.values(), *rows]


def _row(
    method: str, values: dict[str, Any], suffix: str, network: str, config: Config, baseline: str
) -> Row:
    label = _with_values(method, values)
    place = f"{slug(label)}_{network}"
    return Row(f"{label}{suffix}", config, baseline, place, f"{method}{suffix}", values)


def _with_values(method: str, values: dict[str, Any]) -> str:
    return ", ".join([method, *(f"{k.removeprefix('method.')}={v}" for k, v in values.items())])


def _grid(
    sweep: dict[str, list[Any]], entry: dict[str, Any], network: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """All values of a sweep together, for an entry."""
    names = _swept(sweep, entry, network)
    for values in itertools.product(*(sweep[name] for name in names)):
        yield dict(zip(names, values, strict=True))


def _swept(
    sweep: dict[str, list[Any]], entry: dict[str, Any], network: dict[str, Any]
) -> list[str]:
    """The settings of a sweep that an entry takes, and that neither it nor its network gives."""
    try:
        takes = options_of(entry["name"])
    except (InputError, MissingExtraError):
        takes = set()  # its row is told to have no method
    own = {f"method.{option}" for option in takes if option not in entry}
    given = {*OF_AN_ENTRY} & (entry.keys() | network.keys())
    return [n for n in sweep if n not in given and (n in own or not n.startswith("method."))]


def _config(
    entry: dict[str, Any],
    network: dict[str, Any],
    settings: dict[str, Any],
    seed: int,
    where: str,
    values: dict[str, Any],
) -> Config:
    """The settings of a method with a network; the network's win over the method's.

    The values of a sweep win over the settings of all.
    """
    options = {key: value for key, value in entry.items() if key not in OF_AN_ENTRY}
    options |= {k.removeprefix("method."): v for k, v in values.items() if k[:7] == "method."}
    of_all = {k: v for k, v in values.items() if k[:7] != "method."}
    settings = laid_over(settings, as_settings(of_all, "sweep"))
    own = {key: entry[key] for key in OF_AN_ENTRY if key in entry}
    over = {key: value for key, value in network.items() if key in ("network", *OF_AN_ENTRY)}
    try:
        _refuse_settings(options)
        return config_of(settings | own | over | {"method": options, "seed": seed}, where)
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(where) else f"{where}: {text}") from error


def options_of(method: str) -> set[str]:
    """The names of a method's options. Raises InputError if there is no such method."""
    from codistill.methods import method_class

    return {*inspect.signature(method_class(method)).parameters} - {"peers"}


def _refuse_settings(options: dict[str, Any]) -> None:
    """Raises InputError if an entry changes a setting that all entries share."""
    for key in sorted(options.keys() - {"name"} - options_of(options["name"])):
        group = key.partition(".")[0]
        if group in {f.name for f in dataclasses.fields(Config)} - {"method"}:
            raise InputError(
                f"{key!r} is the same for all: it belongs to settings; a method may "
                "change its own options, peers and shared"
            )


def _refuse_doubles(rows: list[Row], problems: Problems) -> None:
    labels: dict[str, Row] = {}
    folders: dict[str, Row] = {}
    for row in rows:
        if row.label in labels:
            problems.add(
                f"methods: {row.label!r} is the label of the networks alone and apart (shared: 0), "
                "which are always compared: give this one another, such as 'branches alone'"
            )
        elif other := folders.get(row.folder(0)):
            problems.add(f"methods: {row.label!r} and {other.label!r} are too alike: rename one")
        labels[row.label] = folders[row.folder(0)] = row
