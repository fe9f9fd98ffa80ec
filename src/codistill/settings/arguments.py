"""Makes a `Config` of command-line arguments and recipes; without PyTorch until a method is named.

jsonargparse turns the typed `Config` and the constructor of the chosen method into options, so
that `--method.temperature 4` is checked like `--epochs 300`. This file adds `--method ffl` for
`--method.name ffl`, recipes by name, and the nearest known name if a name is unknown.
"""

import argparse
import copy
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from codistill.checks import typed_arguments
from codistill.errors import InputError, did_you_mean
from codistill.importing import refuse_code
from codistill.names import DATASETS
from codistill.settings.config import Config, flatten, names_in
from codistill.settings.data_config import DataConfig
from codistill.settings.recipes import GROUPS, one_line, read_recipe

_LISTS = {"milestones", "data.mean", "data.std"}  # options of several numbers
_HELP = "`codistill train --help`"
_DESCRIPTIONS = {
    "codistill train": "Trains peers together, from a recipe, from options, or from both.",
    "codistill inspect": "Shows what codistill train would build with the same options.",
}


_DATA = "images: a folder of class folders, a table, Parquet, tars, a Hub name, or cifar100"
_SECTIONS = {
    "Main options": "network student method.name epochs batch_size out",
    "Recipe and run": "help config resume max_time placement trust_code seed",
    "Networks": "peers shared keep pretrained weights",
    "Optimisation": "optimizer optimizer_options lr find_lr schedule schedule_unit warmup_epochs "
    "milestones lr_decay momentum nesterov clip_norm accumulate layer_decay freeze freeze_epochs "
    "patience limit_steps",
    "Regularisation": "weight_decay decay_norms ema label_smoothing mixup cutmix class_weights",
    "Speed and memory": "device threads precision eval_precision evaluate_every recompute compile "
    "cuda_graphs",
    "Folder and logging": "checkpoint_seconds keep_checkpoints loggers project",
}
"""Sections of the help, each with its options in order. Others come after those of their group."""


class _Parser(ArgumentParser):
    def format_help(self, formatter: Any = None) -> str:
        """The help, the options that matter most first."""
        # argparse has no public list of the options that were added, in jsonargparse's case by it.
        actions = {action.dest: action for action in self._actions if action.dest not in GROUPS}
        for group in GROUPS & {name.partition(".")[0] for name in actions}:
            short = actions[f"{group}.name"] = copy.copy(actions[f"{group}.name"])
            short.option_strings = [f"--{group}"]
        listed = {title: names.split() for title, names in _SECTIONS.items()}
        known = {name for names in listed.values() for name in names}
        for title, group in (("Data", "data."), ("The method", "method."), ("Further", "")):
            listed[title] = [n for n in actions if n not in known and n.startswith(group)]
            known |= {*listed[title]}
        formatter = formatter or self._get_formatter()
        formatter.add_text(f"usage: {self.prog} DATA [options]")
        formatter.add_text(self.description)
        formatter.add_text(f"Example: {self.prog} photos --student timm/resnet18 --epochs 30")
        formatter.add_text(
            "Defaults are those without a recipe. Photographs have the recipe photos: published "
            "weights, AdamW, epochs and a batch size that suit their number."
        )
        for title, names in listed.items():
            formatter.start_section(title)
            if title == "Main options":
                formatter.add_argument(argparse.Action([], "DATA", help=_DATA))
            formatter.add_arguments([actions[name] for name in names if name in actions])
            formatter.end_section()
        formatter.add_text(self.epilog)
        return str(formatter.format_help())

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise InputError(one_line(message))


def parse_config(argv: Sequence[str], prog: str, also: Mapping[str, str] | None = None) -> Config:
    """The configuration of arguments and of the recipe that they name; arguments win.

    Args:
        argv: the arguments.
        prog: name of the command.
        also: options that the command takes out of its arguments itself, with their help.
    """
    argv = list(_expand(argv))
    path = last_value(argv, "config")
    recipe = {} if path is None else read_recipe(path)
    if path is not None and last_value(argv, "trust_code") != "true":
        refuse_code(_names_in(recipe, argv), path)
    name = last_value(argv, "method.name") or recipe.get("method", {}).get("name")
    if name != recipe.get("method", {}).get("name"):
        recipe.pop("method", None)  # options of another method
    if of_another_kind(recipe.get("data", {}).get("name"), last_value(argv, "data.name")):
        recipe.pop("data", None)  # options that are not for these images
    asked_for_help = not {"-h", "--help"}.isdisjoint(argv)
    default = Config().method["name"]
    # Without a named method, help does without the method's options, and so without PyTorch.
    parser = _parser(prog, name if asked_for_help else name or default, also or {})
    if recipe:
        checked = _checked(parser, recipe, f"recipe {path}", name or default)
        parser.set_defaults({key: checked[key] for key, _ in flatten(recipe)})
    arguments = option_names(argv)
    _refuse_unknown(arguments, parser, "the command", name or default)
    given = {*arguments, *dict(flatten(recipe))}
    return _parse(parser, argv, name or default, given)


def given_settings(argv: Sequence[str], prog: str, also: Mapping[str, str]) -> dict[str, Any]:
    """The settings that arguments give, checked, by names such as data.pad; not the recipe's.

    The arguments are those of `parse_config`.
    """
    config = parse_config(argv, prog, also)
    given = option_names(_expand(argv))
    return {
        key: value
        for key, value in flatten(asdict(config))
        if key in given or key.partition(".")[0] in given
    }


def config_of(settings: dict[str, Any], where: str) -> Config:
    """The configuration of settings that `as_settings` returned, checked like options.

    Args:
        settings: settings, the name of the method among them.
        where: their place, for messages.
    """
    from codistill.methods import method_class

    name = settings["method"]["name"]
    checked = _checked(_parser_of(method_class(name), name), settings, where, name)
    return _to_config(checked, name, set(dict(flatten(settings))))


@functools.cache
def _parser_of(cls: type, name: str) -> ArgumentParser:
    """The parser of settings with a method: made once, as the rows of a table need it often."""
    return _parser("codistill", name, {})


def _parser(prog: str, method: str | None, also: Mapping[str, str]) -> ArgumentParser:
    parser = _Parser(
        prog=prog,
        description=_DESCRIPTIONS.get(prog),
        epilog=None
        if method
        else "`codistill train --method NAME --help` shows the options of a method too.",
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument(
        "--config", help="recipe: a YAML file, or a name that codistill list recipes shows"
    )
    for option, about in also.items():
        parser.add_argument(option, help=about)
    parser.add_class_arguments(Config, None, skip={"method"})
    parser.add_argument(
        "--method.name",
        default=method or Config().method["name"],
        help="the method's name, or package.module:Class",
    )
    if method:
        from codistill.methods import method_class

        parser.add_class_arguments(method_class(method), "method", skip={"peers"})
    return parser


def _checked(
    parser: ArgumentParser, settings: dict[str, Any], where: str, method: str
) -> Namespace:
    """Settings that were checked like options, and the defaults of all others."""
    flat = dict(flatten(settings))
    _refuse_unknown(flat, parser, where, method)
    try:
        checked = parser.parse_object(settings)
        _require_types({key: checked[key] for key in flat}, method)
    except (InputError, argparse.ArgumentError, TypeError, KeyError) as error:
        raise InputError(f"{where}: {one_line(str(error))}") from error
    return checked


def _require_types(values: dict[str, Any], method: str) -> None:
    """Raises InputError for a value of another type: jsonargparse takes null for any default."""
    from codistill.methods import method_class

    takes = {
        "": lambda: Config,
        "data.": lambda: DataConfig,
        "method.": lambda: method_class(method),
    }
    for key, value in values.items():
        group, _, name = key.rpartition(".")
        prefix = f"{group}." if group else ""
        if prefix in takes and key != "method.name":
            typed_arguments(takes[prefix](), {name: value}, prefix)


def _parse(parser: ArgumentParser, argv: Sequence[str], method: str, given: set[str]) -> Config:
    try:
        return _to_config(parser.parse_args(list(argv)), method, given)
    except argparse.ArgumentError as error:
        raise InputError(one_line(str(error))) from error


def _to_config(parsed: Namespace, method: str, given: set[str]) -> Config:
    """Leaves out what depends on the length of the run, unless it is among the given settings."""
    from codistill.methods import method_class

    known = {f.name for f in fields(Config)}
    values = {key: value for key, value in parsed.as_dict().items() if key in known}
    later = {name for name in method_class(method).scales if f"method.{name}" not in given}
    options = {k: v for k, v in (values.get("method") or {}).items() if k not in later}
    values["method"] = {"name": method} | options
    if values["student"] is not None and "network" not in given:
        values["network"] = values["student"]
    named = names_in("network", values["network"])
    if len(named) > 1 and "peers" not in given:
        values["peers"] = len(named) + (values["student"] not in (None, *named))
    return Config.from_dict(values)


def _expand(argv: Sequence[str]) -> Iterator[str]:
    """The arguments with `--method` for `--method.name`, and lists as jsonargparse reads them."""
    option = ""
    for argument in argv:
        key, equals, value = argument.partition("=")
        short = key.removeprefix("--")
        before, option = option, short if key.startswith("--") else ""
        if option in GROUPS:
            yield f"--{option}.name{equals}{value}"
        elif option in _LISTS and equals:
            yield f"{key}={_in_brackets(value)}"
        elif before in _LISTS and not option:
            yield _in_brackets(argument)
        else:
            yield argument


def option_names(argv: Iterable[str]) -> list[str]:
    """The names of the options among arguments, without dashes."""
    return [a.partition("=")[0].removeprefix("--") for a in argv if a.startswith("--")]


def _in_brackets(numbers: str) -> str:
    """Numbers with commas between them, as a list."""
    return numbers if numbers.lstrip().startswith("[") else f"[{numbers}]"


def of_another_kind(recipe: str | None, given: str | None) -> bool:
    """Whether one of two data sets is held in memory and the other is cut from larger images."""
    if recipe not in DATASETS or given not in DATASETS:
        return False
    sizes = [DATASETS[name].image_size for name in (recipe, given)]
    return None in sizes and sizes != [None, None]


def last_value(argv: Sequence[str], name: str) -> str | None:
    """The last value given for an option."""
    found = None
    for i, argument in enumerate(argv):
        key, equals, value = argument.partition("=")
        if key == f"--{name}":
            found = value if equals else argv[i + 1] if i + 1 < len(argv) else None
    return found


def _names_in(recipe: dict[str, Any], argv: Sequence[str]) -> Iterator[str]:
    """The names of the method, the networks and the loggers in a recipe, which may be of code.

    Without those for which the arguments give another, or the same.
    """
    for key, value in flatten(recipe):
        if key in ("method.name", "network", "loggers") and last_value(argv, key) is None:
            yield from str(value).split(",")


def _refuse_unknown(keys: Any, parser: ArgumentParser, where: str, method: str) -> None:
    known = {"help", *GROUPS, *parser.get_defaults().keys()}
    for key in keys:
        if key in known:
            continue
        group, _, option = key.rpartition(".")
        siblings = {k for k in known if group and k.rpartition(".")[0] == group} or known
        if group == "method":
            siblings -= {"method.name"}
            if not siblings:
                raise InputError(
                    f"{where}: method {method!r} has no option {option!r}, and no other"
                )
        raise InputError(f"{where}: {key!r} is not known: {did_you_mean(key, siblings, _HELP)}")
