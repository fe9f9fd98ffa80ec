"""Recipes: YAML files of settings, found by their path, or by name among those of codistill."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from codistill.errors import InputError, did_you_mean
from codistill.files import place_of
from codistill.settings.config import flatten, without_retired
from codistill.settings.yaml_files import read_yaml

_OF_ANOTHER_TYPE = re.compile(
    r'Parser key "([^"]+)": (?:.*Subtypes: \[(list)\[)?.*?Expected a (\w+)'
    r"(?:\[([^\]]*)\])?.*(?:Got|Given) value: (.*)$"
)
_WORDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "list": "numbers with commas between them",
}
GROUPS = {"method", "data"}  # `--method ffl` is short for `--method.name ffl`


def read_recipe(path: str) -> dict[str, Any]:
    """The settings in a recipe: a YAML file, or the name of one that comes with codistill."""
    file = place_of(path)
    if not path or not file.exists() or file.is_dir():
        if path not in recipes():
            known = did_you_mean(path, recipes())
            raise InputError(f"there is no recipe file {path!r}, and none of that name: {known}")
        file = recipes()[path]
    recipe = read_yaml(file, sealed=False)  # a run's config.yaml may be edited for another run
    if not isinstance(recipe, dict):
        raise InputError(f"{file} is no recipe: it has to hold settings, such as 'epochs: 300'")
    if "config" in recipe:
        raise InputError(f"{file}: a recipe cannot name another with 'config'")
    return as_settings(without_retired(recipe), str(file))


def as_settings(tree: dict[Any, Any], where: str) -> dict[str, Any]:
    """Settings in nested groups, from `data: digits`, `data.name: digits` and the like.

    Args:
        tree: the content of a file.
        where: the file's name, for messages.
    """
    settings = {k: v for k, v in tree.items() if v != {} or k not in GROUPS}
    for group in GROUPS:
        if isinstance(settings.get(group), str):
            settings[group] = {"name": settings[group]}
    try:
        settings = _nest(dict(flatten(settings)))  # "method.temperature: 3" is understood too
    except (AttributeError, TypeError) as error:
        raise InputError(f"{where} is no recipe: its keys have to be names") from error
    for group in GROUPS & settings.keys():
        content = settings[group]
        if not isinstance(content, dict) or not isinstance(content.get("name", ""), str):
            raise InputError(f"{where}: {group} is {content!r}: give a name, or name: and options")
    return settings


def laid_over(settings: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with others in their place; those of the data take their places one by one."""
    data = {**settings.get("data", {}), **others.get("data", {})}
    return {**settings, **others, **({"data": data} if data else {})}


def recipes() -> dict[str, Path]:
    """The recipes that come with codistill, by name."""
    package = Path(__file__).parents[1]
    folders = package / "recipes", package.parents[1] / "recipes"  # installed, or a checkout
    folder = next((f for f in folders if f.is_dir()), None)
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))} if folder else {}


def _nest(flat: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *groups, name = key.split(".")
        branch = tree
        for group in groups:
            branch = branch.setdefault(group, {})
        branch[name] = value
    return tree


def one_line(message: str) -> str:
    """What jsonargparse says of a value, in a line: "epochs is 'many': give a whole number"."""
    message = re.sub(r"<class '(?:\w+\.)*(\w+)'>|typing\.", r"\1", " ".join(message.split()))
    if wrong := _OF_ANOTHER_TYPE.match(message):
        key, several, kind, choices, value = wrong.groups()
        words = choices.replace(", ", " or ") if choices else _WORDS.get(several or kind)
        if words:
            return f"{key} is {value}: give {words}"
    return re.sub(r'^Parser key "([^"]+)":', r"\1:", message)
