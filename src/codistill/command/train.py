"""`codistill train`: trains a run to its end and shows its progress."""

import argparse
from typing import TYPE_CHECKING

from codistill.command.options import Parser, add_places, open_run
from codistill.errors import InputError
from codistill.messages import note, say
from codistill.settings.arguments import parse_config
from codistill.settings.config import Config

if TYPE_CHECKING:
    from codistill.runs.run import Run


def main(argv: list[str]) -> int:
    """`codistill train [--config RECIPE] [options] | --resume RUN`."""
    resumes = any(argument.partition("=")[0] == "--resume" for argument in argv)
    options = _resume_options(argv) if resumes else parse_config(argv, "codistill train")

    from codistill.runs.run import Run

    if isinstance(options, Config):
        return train_with_display(Run.create(options))
    return train_with_display(open_run(options.resume, options))


def train_with_display(run: "Run") -> int:
    """Trains a run to its end, shows its progress, and prints its scores."""
    from rich.console import Console

    from codistill.reporting.tables import print_table
    from codistill.runs.finished import load_results
    from codistill.runs.progress import follow
    from codistill.runs.remarks import warnings_about

    console = Console(stderr=True)
    for line in run.data().taken:
        say(console, f"codistill: {line}")
    for warning in warnings_about(run):
        note(warning, console)
    try:
        follow(run, console, str(run.path))
    except (KeyboardInterrupt, OSError):
        resume = f"codistill: stopped; continue with: codistill train --resume {run.path}"
        say(console, resume)
        raise
    print_table(load_results([run.path]))
    print(f"run:     {run.path}")
    print(f"student: {run.path / 'student.safetensors'}")
    return 0


def _resume_options(argv: list[str]) -> argparse.Namespace:
    """The options beside `--resume RUN`: the device, and where the images are now."""
    parser = Parser(
        prog="codistill train",
        description="Continues a run that was interrupted, to the same weights.",
        allow_abbrev=False,
    )
    parser.add_argument("--resume", metavar="RUN", help="folder of the run")
    add_places(parser)
    parser.add_argument("--loggers", metavar="NAMES", help="loggers (default: the run's)")
    options, rest = parser.parse_known_args(argv)
    if rest:
        raise InputError(
            f"--resume takes up a run as it was: leave out {' '.join(rest)}, "
            "or begin a new run with --out"
        )
    return options
