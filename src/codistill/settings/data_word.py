"""The images as the first word of a command: `codistill train photos` for `--data folder ...`."""

from collections.abc import Sequence

from codistill.errors import InputError
from codistill.names import DATASETS
from codistill.settings.arguments import last_value
from codistill.settings.recipes import read_recipe

PHOTOS = "photos"
"""The recipe for photographs, unless another or networks without published weights are given."""
_PUBLISHED = ("timm/", "torchvision/")  # beginnings of networks that may start from such weights


def with_data(argv: Sequence[str], networks: str | None = None) -> tuple[list[str], str]:
    """The arguments with the word in place of which `--data` and `--data.root` could stand.

    A place that `--data.root` gives alone is recognised in the same way. Photographs without
    `--config` get the recipe `photos`, unless `--network` names networks that have no published
    weights. `--network` without `--student` takes the place of the recipe's student too.

    Args:
        argv: the arguments.
        networks: names of networks, separated by commas, that stand in place of `--network`.

    Returns:
        The arguments, and a line on what was chosen, or nothing.

    Raises:
        InputError: there are two words, or one that names no images, or several.
    """
    argv = list(argv)
    if not {"-h", "--help"}.isdisjoint(argv):
        return argv, ""
    words = _words(argv)
    given = {name: last_value(argv, name) for name in ("config", "network", "student", "data.root")}
    name = last_value(argv, "data") or last_value(argv, "data.name")
    if len(words) > 1 or (words and given["data.root"]):
        both = [argv[i] for i in words] + [root for root in (given["data.root"],) if root]
        raise InputError(f"the images are given twice, by {both[0]!r} and {both[1]!r}: give one")
    word = argv.pop(words[0]) if words else given["data.root"]
    named = name or (given["config"] and _data_of(given["config"]) if not words else None)
    if word is not None and named is None:
        from codistill.data.recognise import recognise

        name, root = recognise(word)
        argv += ["--data", name, *(["--data.root", root] if root is not None else [])]
    elif words and word is not None:
        argv += ["--data.root", word]
    photographs = name in DATASETS and DATASETS[name].image_size is None
    named = networks or given["network"]
    if not photographs or given["config"] or (named and not _published(named, given["student"])):
        return argv, ""
    argv += ["--config", PHOTOS]
    if given["network"] and not given["student"]:
        argv += ["--student", "null"]
    return argv, f"photographs: the recipe {PHOTOS}, as no --config is given"


def _published(networks: str, student: str | None) -> bool:
    """Whether all of these networks may start from published weights."""
    names = [*networks.split(","), *([student] if student else [])]
    return all(name.strip().startswith(_PUBLISHED) for name in names)


def _data_of(recipe: str) -> str | None:
    """The name of the data set in a recipe, if it has one."""
    return read_recipe(recipe).get("data", {}).get("name")


def _words(argv: Sequence[str]) -> list[int]:
    """The places of the arguments that are neither options nor their values."""
    words, is_value = [], False
    for i, argument in enumerate(argv):
        option = argument.startswith("-")
        if not option and not is_value:
            words.append(i)
        is_value = option and "=" not in argument
    return words
