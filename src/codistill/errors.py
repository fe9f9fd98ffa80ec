"""Errors that the user can repair: the command shows each as one line, without a traceback."""

from collections.abc import Iterable
from difflib import get_close_matches

from codistill.messages import quoted

_ALL = 40  # names: of more, the first are listed, or a command that shows them is named


class InputError(ValueError):
    """Something the user gave cannot be used. The message says what, where, and what to do."""


class MissingExtraError(ImportError):
    """An optional package is not installed. The message has the line that installs it."""

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(f"{purpose} needs {package}: pip install 'codistill[{extra}]'")


def reason(error: BaseException) -> str:
    """The first line of an error's message, or the error's type if it has no message."""
    return (str(error) or type(error).__name__).splitlines()[0]


_OF_OTHER_TOOLS = {
    **dict.fromkeys(("infer", "inference", "classify"), "predict"),
    **dict.fromkeys(("convert", "deploy"), "export"),
    **dict.fromkeys(("fit", "finetune", "fine_tune"), "train"),
    **dict.fromkeys(("val", "validate", "test", "eval"), "evaluate"),
    **dict.fromkeys(("learning_rate", "lr0", "base_lr"), "lr"),
    **dict.fromkeys(("lr_scheduler", "scheduler", "sched", "lr_schedule"), "schedule"),
    **dict.fromkeys(("opt", "optim"), "optimizer"),
    **dict.fromkeys(("batch", "bs", "train_batch_size"), "batch_size"),
    **dict.fromkeys(("arch", "model", "backbone", "net"), "network"),
    **dict.fromkeys(("imgsz", "img_size", "input_size", "resolution"), "data.image_size"),
    **dict.fromkeys(("data_dir", "data_path", "dataset_dir"), "data.root"),
    **dict.fromkeys(("num_workers", "workers"), "data.workers"),
    **dict.fromkeys(("output", "output_dir", "save_dir"), "out"),
    **dict.fromkeys(("num_epochs", "num_train_epochs", "max_epochs"), "epochs"),
    **dict.fromkeys(("wd", "decay"), "weight_decay"),
    **dict.fromkeys(("warmup", "warm_up"), "warmup_epochs"),
    **dict.fromkeys(("amp", "fp16", "bf16", "half"), "precision"),
    **dict.fromkeys(("smoothing", "label_smooth"), "label_smoothing"),
}
"""What commands and options of other tools are called here; dashes count as underscores."""


def did_you_mean(word: str, known: Iterable[str], shown_by: str = "") -> str:
    """A hint at the known name that is a letter or two away; if there is none, the known names.

    Args:
        word: unknown name.
        known: known names.
        shown_by: command that shows all of them, where they are too many for a line.
    """
    known = sorted(known)
    plain = word.replace("-", "_")
    meant = _OF_OTHER_TOOLS.get(plain, plain)
    if meant in known:
        return f"did you mean {meant!r}?"
    near = [name for name in known if word and (name.startswith(word) or name.endswith(f".{word}"))]
    if not near:
        ends = {name.rpartition(".")[2].casefold(): name for name in reversed(known)}
        ends |= {name.casefold(): name for name in known}
        cutoff = 0.65 if len(word) < 5 else 0.75
        near = [ends[end] for end in get_close_matches(word.casefold(), ends, 1, cutoff)]
    if near:
        return f"did you mean {near[0]!r}?"
    if len(known) > _ALL and shown_by:
        return f"{shown_by} shows all {len(known):,}"
    return f"there are {quoted(known, _ALL)}"


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
