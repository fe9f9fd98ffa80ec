"""A comparison by options: the file that it would have needed, of the arguments of `train`."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from codistill.comparing.comparison import BASELINE, Comparison, options_of, parse_comparison
from codistill.comparing.sections import slug
from codistill.errors import InputError, did_you_mean, reason
from codistill.settings.arguments import given_settings, last_value, option_names
from codistill.settings.config import names_in
from codistill.settings.recipes import as_settings, read_recipe
from codistill.settings.yaml_files import parse_yaml, to_yaml

_ELSEWHERE = {
    "method.name": "--methods NAME,NAME",
    "seed": "--seeds N, the number of seeds",
}


def comparison_of(
    argv: Sequence[str],
    methods: str,
    networks: str | None,
    seeds: int,
    command: str,
    also: Mapping[str, str],
    sweeps: Sequence[str] = (),
) -> Comparison:
    """The comparison of a command line, and in its `text` the file of it.

    Args:
        argv: arguments of `train`, the images given by `--data`.
        methods: names of methods, separated by commas. Each gets those of the arguments'
            `--method.OPTION` that it takes.
        networks: names of networks, separated by commas, each for all peers; None takes that of the
            arguments.
        seeds: number of seeds, from 0 on.
        command: the command line, for the first line of the file.
        also: options that the command takes out of its arguments itself, with their help.
        sweeps: settings with values to try, such as "lr=0.03,0.1"; several make a grid.

    Raises:
        InputError: lists what cannot be used.
    """
    for name, instead in _ELSEWHERE.items():
        if last_value(argv, name) is not None or name.partition(".")[0] in option_names(argv):
            raise InputError(f"--{name.removesuffix('.name')} is for one training: give {instead}")
    entries: dict[str, dict[str, Any]] = {}
    settings: dict[str, Any] = {}
    for name in dict.fromkeys(names_in("--methods", methods)):
        own = [*_for_method(argv, name), "--method.name", name]
        flat = given_settings(own, "codistill compare", also)
        entries[name] = {
            key.removeprefix("method."): value
            for key, value in flat.items()
            if key.startswith("method.") and key != "method.name"
        }
        settings = {k: v for k, v in flat.items() if not k.startswith("method.") and k not in also}
    if len(entries) > 1:
        entries.pop(BASELINE, None)  # it is always compared
    _refuse_unused(argv, entries)
    tree = {
        "recipe": last_value(argv, "config"),
        "settings": settings,
        "networks": _networks(argv, networks, settings),
        "seeds": list(range(seeds)),
        "methods": entries,
        "sweep": dict(map(_swept, sweeps)),
    }
    tree = {key: value for key, value in tree.items() if value}
    tree["settings"] = _with_absolute_root(as_settings(settings, "the command"))
    comparison = parse_comparison(tree, "codistill compare")
    text = f"# {command}\n# Its runs are in this folder: codistill compare THIS FILE goes on.\n"
    return comparison.with_text(text + to_yaml(tree))


def usual_folder(argv: Sequence[str]) -> Path:
    """The folder of a comparison of these images."""
    place = last_value(argv, "data.root") or last_value(argv, "data.name") or "digits"
    return Path("runs", f"compare_{slug(place.rstrip('/').rpartition('/')[2]) or 'images'}")


def _swept(text: str) -> tuple[str, list[Any]]:
    """A setting and its values, from "lr=0.03,0.1"."""
    name, equals, values = text.partition("=")
    try:
        found = parse_yaml(f"[{values}]")
    except yaml.YAMLError as error:
        raise InputError(f"--sweep {text!r} cannot be read: {reason(error)}") from error
    if not equals:
        raise InputError(f"--sweep is {text!r}: give a setting and values, such as lr=0.03,0.1")
    return {"method": "method.name", "data": "data.name"}.get(name, name), found


def _networks(
    argv: Sequence[str], networks: str | None, settings: dict[str, Any]
) -> list[str] | None:
    """The networks of the file. A recipe's student does not stand beside those that are named."""
    one = settings.pop("network", None)
    if networks is None:
        return [one] if one else None
    if one:
        raise InputError("--network and --networks both name networks: give one of them")
    recipe = last_value(argv, "config")
    if recipe and "student" not in settings and read_recipe(recipe).get("student"):
        settings["student"] = None
    return names_in("--networks", networks)


def _for_method(argv: Sequence[str], method: str) -> Iterator[str]:
    """The arguments without the options of other methods."""
    takes = options_of(method)
    left_out = False
    for argument in argv:
        if argument.startswith("--"):
            group, _, option = argument.removeprefix("--").partition("=")[0].partition(".")
            left_out = group == "method" and option not in takes  # and its value
        if not left_out:
            yield argument


def _refuse_unused(argv: Sequence[str], methods: Mapping[str, Any]) -> None:
    """Raises InputError for an option that no method takes."""
    known = {f"method.{option}" for name in methods for option in options_of(name)}
    for name in option_names(argv):
        if name.startswith("method.") and name not in known:
            hint = did_you_mean(name, known) if known else "they have no options"
            raise InputError(f"none of {', '.join(methods)} takes {name!r}: {hint}")


def _with_absolute_root(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with the place of the images as any folder can read it."""
    from codistill.settings.build_data import absolute_root
    from codistill.settings.data_config import DataConfig

    data = settings.get("data", {})
    if data.get("root") is None or "name" not in data:
        return settings
    root = absolute_root(DataConfig(name=data["name"], root=data["root"]))
    return settings | {"data": data | {"root": root}}
