"""`codistill compare`: trains methods beside the networks alone, and reports what helped."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from codistill.command.options import (
    TRUST_CODE,
    Parser,
    add_launch_options,
    add_out,
    add_page_options,
    measure_options,
    positive,
)
from codistill.command.stopping import Stopping
from codistill.errors import InputError, did_you_mean
from codistill.files import place_of
from codistill.messages import printable

if TYPE_CHECKING:
    from codistill.comparing.comparison import Comparison
    from codistill.reporting.page.measure import MeasureOptions

_USAGE = """codistill compare DATA --methods NAMES [options of train]
       codistill compare FILE [options]"""
_FILE = "comparison.yaml"


def main(argv: list[str]) -> int:
    """`codistill compare FILE` or `codistill compare DATA --methods NAMES`."""
    stop = Stopping()
    parser = _parser()
    options, rest = parser.parse_known_args(argv)
    if any(argument.partition("=")[0] == "--placement" for argument in rest):
        raise InputError(
            "--placement is for train under torchrun: compare trains each run in one process, "
            "which has all its peers; --parallel N trains N runs at a time"
        )
    how = measure_options(options)
    stop.end_in_time(options.max_time)
    if options.methods:
        comparison, folder = _by_options(options, rest, argv)
    else:
        comparison, folder = _of_file(options, rest, parser)
    if options.dry_run:
        return _show(comparison, folder)
    parallel, launcher, report_only = options.parallel, options.launcher, options.report_only
    return compare(comparison, folder, parallel, launcher, report_only, stop, how)


def _parser() -> Parser:
    parser = Parser(
        prog="codistill compare",
        usage=_USAGE,
        description="Trains methods x networks x seeds and the networks alone, with all other "
        "settings equal, and reports what helped and what hurt. Runs that are finished are not "
        "trained again; interrupted runs continue. DATA are images as train takes them, with the "
        f"recipe photos for photographs; every option of train is for all runs, and {_FILE} in "
        "the folder is the file that would have done the same. FILE is such a file, in YAML; "
        "docs/compare.md describes it.",
        epilog="Example: codistill compare photos --methods dml,ffl --seeds 3 --epochs 20",
        allow_abbrev=False,
    )
    parser.add_argument("--methods", metavar="NAMES", help="methods, such as dml,ffl")
    parser.add_argument(
        "--seeds",
        type=positive,
        metavar="N",
        help="runs of each, with seeds from 0 on (default: 3)",
    )
    parser.add_argument(
        "--networks", metavar="NAMES", help="networks, each with every method (default: train's)"
    )
    parser.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="SETTING=A,B",
        help="values to try, such as lr=0.03,0.1 or method.temperature=1,3; the held-out images "
        "choose. Several make a grid",
    )
    add_out(
        parser,
        "folder of the runs and the report (default: runs/compare_DATA, or runs/NAME of FILE)",
    )
    add_launch_options(parser)
    add_page_options(parser)
    return parser


def _by_options(
    options: argparse.Namespace, rest: list[str], argv: list[str]
) -> "tuple[Comparison, Path]":
    """The comparison of a command line, and its folder."""
    from codistill.settings.data_word import with_data

    rest, said = with_data(rest, options.networks)
    if said:
        print(f"codistill: {said}", file=sys.stderr)

    from codistill.comparing.without_file import comparison_of, usual_folder

    command = printable(shlex.join(["codistill", "compare", *argv]))
    own = ("methods", "networks", "seeds", "sweep", "parallel", "launcher", "max_time", "images")
    also = {f"--{name}": "" for name in own} | {"--trust_code": TRUST_CODE}
    seeds = options.seeds or 3
    comparison = comparison_of(
        rest, options.methods, options.networks, seeds, command, also, options.sweep
    )
    return comparison, place_of(options.out) if options.out else usual_folder(rest)


def _of_file(
    options: argparse.Namespace, rest: list[str], parser: Parser
) -> "tuple[Comparison, Path]":
    """The comparison in a file, and its folder: that of the file if an earlier call wrote it.

    Raises:
        InputError: no file is given, or options that belong into it.
    """
    for argument in rest:
        if argument.startswith("-"):
            raise InputError(_unknown(argument.partition("=")[0], parser))
    if len(rest) != 1:
        raise InputError(
            "give images and methods, such as codistill compare photos --methods dml,ffl, or one "
            "file (see codistill compare --help)"
        )
    for name in ("seeds", "networks", "sweep"):
        if getattr(options, name):
            raise InputError(
                f"--{name} is for comparisons without a file: write {name} in {rest[0]}"
            )
    file = place_of(rest[0])
    if (file / _FILE).is_file():
        file = file / _FILE
    elif file.is_dir():
        raise InputError(
            f"{file} holds no comparison: to compare methods on its images, name them: codistill "
            f"compare {shlex.quote(rest[0])} --methods dml,ffl"
        )

    from codistill.comparing.comparison import read_comparison

    written = file.name == _FILE and (file.parent / ".lock").exists()
    usual = file.parent if written else Path("runs", file.stem)
    return read_comparison(file), place_of(options.out) if options.out else usual


def _unknown(option: str, parser: Parser) -> str:
    """A line on an option that is none of a comparison of a file."""
    from dataclasses import fields

    from codistill.settings.config import Config

    name = option.lstrip("-")
    if name.partition(".")[0] in {"config", *(f.name for f in fields(Config))}:
        return (
            f"{option} is a setting of the runs: write it in the file, or give images and methods "
            "in place of a file (see codistill compare --help)"
        )
    known = [o for action in parser._actions for o in action.option_strings]
    return f"{option!r} is not known: {did_you_mean(option, known)}"


def _show(comparison: "Comparison", folder: Path) -> int:
    """Prints the runs of a comparison and how long they take on this machine."""
    import torch

    from codistill.command.plan import show_plan
    from codistill.comparing.planned_runs import plan_runs
    from codistill.settings.build_data import build_data

    runs = plan_runs(comparison, folder)
    images = build_data(runs[0].config, torch.device("cpu")).train.images
    rows = list({run.row.label: run.row for run in runs}.values())
    finished = sum(run.finished() for run in runs)
    show_plan(rows, comparison.seeds, images, f"{finished} of them finished" if finished else "")
    print(f"folder: {folder}")
    return 0


def compare(
    comparison: "Comparison",
    folder: Path,
    parallel: int | None,
    launcher: str,
    report_only: bool,
    stop: Stopping,
    how: "MeasureOptions | None" = None,
) -> int:
    """Trains the runs of a comparison that are not finished, and writes its report.

    Returns the exit status: 0, 1 if a run failed, or that of `stop`.

    Args:
        comparison: what is compared.
        folder: folder of its runs and its report.
        parallel: number of runs that train at a time. Default: one; on a cluster all of them.
        launcher: one of `launchers.LAUNCHERS`.
        report_only: whether nothing is trained.
        stop: ends the training in time.
        how: how the networks are measured for the page; None: not at all.
    """
    from rich.console import Console

    from codistill import files
    from codistill.comparing.launchers import launcher_named
    from codistill.comparing.planned_runs import plan_runs
    from codistill.comparing.schedule import train_unfinished
    from codistill.messages import say
    from codistill.reporting.comparison import report_comparison, require_report_extras
    from codistill.runs.folder import locked

    require_report_extras()
    if report_only:
        runs = plan_runs(comparison, folder, check=False)
        report_comparison(comparison, runs, folder, how)
        return 0
    console = Console(stderr=True)
    starts = launcher_named(launcher, comparison, folder)
    runs = plan_runs(comparison, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        files.write_text(folder / _FILE, comparison.text)
        here = launcher != "slurm"
        with stop.on_signals():
            failures = train_unfinished(runs, starts, parallel, here, console, stop)
        if stop.reason and not all(run.finished() for run in runs):
            say(console, f"codistill: {stop.reason}: stopped; the same command continues")
            return stop.status
        if any(run.finished() for run in runs):
            report_comparison(comparison, runs, folder, how)
    for failure in failures:
        line = f"codistill: failed: {failure.run.name}: {failure.reason}; log: {failure.run.log}"
        say(console, line)
    return 1 if failures else 0
