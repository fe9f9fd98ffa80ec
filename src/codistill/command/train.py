"""`codistill train`: trains a run to its end and shows its progress."""

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codistill.command.header import header
from codistill.command.options import MAX_TIME, TRUST_CODE, Parser, add_places, add_trust, open_run
from codistill.command.stopping import CALL_AGAIN, EndedAtOnce, Stopping
from codistill.errors import InputError, reason
from codistill.messages import note, say
from codistill.settings.arguments import parse_config
from codistill.settings.config import Config
from codistill.settings.data_word import with_data

if TYPE_CHECKING:
    from rich.console import Console

    from codistill.runs.run import Run
    from codistill.training.placement import Where

# Settings beside the recipe that a run keeps as it was made.
_KEPT = ["threads", "recompute", "compile", "cuda_graphs"]
_KEPT += ["checkpoint_seconds", "keep_checkpoints", "project"]


_FIND_LR = (
    "train nothing: try learning rates in up to 100 steps, suggest one, and write a table beside "
    "the run's folder"
)
_OWN = {
    "--resume": "folder of a run to continue; auto continues the run of these settings in --out, "
    "or starts it if there is none",
    "--placement": "what several processes of torchrun divide: data, the images of every batch "
    "(default); or peers, of which each process then has one (docs/distributed.md)",
    "--max_time": MAX_TIME,
    "--find_lr": _FIND_LR,
}


_LAUNCHERS = "WORLD_SIZE", "SLURM_STEP_NUM_TASKS"  # torchrun, srun: number of processes


def main(argv: list[str]) -> int:
    """`codistill train [DATA] [--config RECIPE] [options] [--resume auto] | --resume RUN`."""
    if all(os.environ.get(name, "") in ("", "1") for name in _LAUNCHERS):
        return _train(argv, Stopping(), alone=True)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # one line of ours says what happened
    from codistill import distributed

    with distributed.joined() as place, contextlib.ExitStack() as silence:
        if place.rank:
            nowhere = silence.enter_context(open(os.devnull, "w"))
            silence.enter_context(contextlib.redirect_stdout(nowhere))
            silence.enter_context(contextlib.redirect_stderr(nowhere))
        if "--find_lr" in argv:
            raise InputError("--find_lr tries learning rates in one process: leave out torchrun")
        return _train(argv, Stopping(silent=place.rank > 0))


def _train(argv: list[str], stop: Stopping, alone: bool = False) -> int:
    parser = Parser(prog="codistill train", add_help=False, allow_abbrev=False)
    for name in _OWN:
        parser.add_argument(name, **_kind(name))
    own, rest = parser.parse_known_args(argv)
    stop.end_in_time(own.max_time)
    if own.find_lr and own.resume is not None:
        raise InputError("--find_lr is for a run that has not begun: leave out --resume")
    placement: Where = own.placement or "data"
    if own.resume not in (None, "auto"):
        options = _resume_options(own.resume, rest)
        _require_processes(placement, alone)
        from codistill import distributed

        with distributed.first_alone():
            run = open_run(own.resume, options, placement)
        return train_with_display(run, stop)
    rest, said = with_data(rest)
    if said:
        print(f"codistill: {said}", file=sys.stderr)
    config = parse_config(rest, "codistill train", _OWN | {"--trust_code": TRUST_CODE})
    _require_processes(placement, alone)
    if own.find_lr:
        return _find_lr(config, stop)

    from codistill.runs.run import Run

    begin = Run.create if own.resume is None else _started_or_continued
    run = begin(config, placement)
    return train_with_display(run, stop)


def _require_processes(placement: str, alone: bool) -> None:
    if placement == "peers" and alone:
        raise InputError(
            "--placement peers is for several processes, with a peer each, and there is one: start "
            "with torchrun --nproc-per-node K for K peers, or leave it out"
        )


def _kind(option: str) -> dict[str, Any]:
    if option == "--placement":
        return {"choices": ["data", "peers"]}
    return {"action": "store_true"} if option == "--find_lr" else {}


def _find_lr(config: Config, stop: Stopping) -> int:
    """Tries learning rates, prints a suggestion, and writes a table of them."""
    from rich.console import Console

    from codistill import files
    from codistill.reporting.text import csv_table, wrapped
    from codistill.runs.find_lr import STEPS, range_test, suggested
    from codistill.runs.new_run import prepare

    console = Console(stderr=True)
    new = prepare(config)
    for line in new.data.taken:
        say(console, f"codistill: {line}")
    say(console, f"codistill: tries learning rates in up to {STEPS} steps; nothing of it is kept")
    with stop.on_signals():
        steps = range_test(new, stop)
    if stop.reason:
        say(console, f"codistill: {stop.reason}: stopped; there is no table")
        return stop.status
    file = Path(f"{config.run_folder()}.find_lr.csv")
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [[f"{s.lr:.4g}", f"{s.loss:.5g}", f"{s.smooth:.5g}"] for s in steps]
    files.write_text(file, csv_table(["lr", "loss", "smooth"], lines))
    best = suggested(steps)
    tried = f"{len(steps)} steps of {new.config.batch_size} images, from {steps[0].lr:.1e} on"
    if best is None:
        print(wrapped(f"no suggestion: the loss hardly fell in {tried}"))
    else:
        lowest = min(steps, key=lambda s: s.smooth)
        print(f"suggestion: --lr {best:g}")
        text = (
            f"There the loss falls fastest; it is lowest at {lowest.lr:.1e} ({tried}). A few steps "
            f"make a guess: codistill compare ... --sweep lr={best / 3:.1g},{best:g},"
            f"{best * 3:.1g} tells more."
        )
        print(wrapped(text))
    print(f"table: {file}")
    return 0


def _started_or_continued(config: Config, placement: "Where") -> "Run":
    """The run in the folder of a configuration, or a new one if the folder holds none.

    Raises:
        InputError: the folder holds a run of other settings.
    """
    from codistill import distributed
    from codistill.runs.finished import differences_from
    from codistill.runs.folder import CONFIG
    from codistill.runs.run import Run

    path = config.run_folder()
    if not distributed.of_first((path / CONFIG).exists()):
        return Run.create(config, placement)
    if different := differences_from(path, config, also=_KEPT):
        raise InputError(
            f"{path} holds a run of other settings ({', '.join(different)}): give its settings, or "
            "another folder with --out"
        )
    places = config.device, config.data.root, config.data.workers, config.loggers
    # It names what the caller named.
    return Run(path, *places, trust_code=True, placement=placement)


def train_with_display(run: "Run", stop: Stopping) -> int:
    """Trains a run until its end or `stop`, shows its progress, and prints its scores.

    Returns the exit status.
    """
    from rich.console import Console

    from codistill import distributed
    from codistill.reporting.tables import print_table, student_lines
    from codistill.runs.checkpoints import newest
    from codistill.runs.finished import load_results
    from codistill.runs.folder import CONFIG
    from codistill.runs.progress import follow
    from codistill.runs.remarks import warnings_about

    console = Console(stderr=True)
    for line in run.data().taken:
        say(console, f"codistill: {line}")
    for line in header(run):
        say(console, line)
    for warning in warnings_about(run):
        note(warning, console)
    before = newest(run.path)
    try:
        with stop.on_signals():
            follow(run, console, "", stop)
    except (KeyboardInterrupt, OSError) as error:
        if not os.path.exists(run.path / CONFIG):
            if isinstance(error, KeyboardInterrupt):
                raise
            raise InputError(
                f"{run.path} is no longer there ({error.strerror or reason(error)}): if it was "
                "moved, continue with: codistill train --resume NEW/PLACE"
            ) from error
        say(console, f"codistill: stopped; continue with: codistill train --resume {run.path}")
        if isinstance(error, EndedAtOnce) and distributed.size() == 1:
            return error.status
        raise
    if not run.finished():
        stop.take_from(distributed.of_all((stop.reason, stop.status)))
        return _stopped(run.path, stop, before, console)
    results = load_results([run.path])
    print_table(results)
    ((result,),) = results.values()
    print(f"\nrun:     {run.path}\n{student_lines(result)}")
    return 0


def _stopped(run: Path, stop: Stopping, before: Path | None, console: "Console") -> int:
    """Says where a run stopped and how to continue it; returns the exit status."""
    from codistill.runs.checkpoints import newest

    last = newest(run)
    if stop.status == CALL_AGAIN and last == before:
        raise InputError(
            f"{stop.reason} came before one more step or evaluation was complete: give more time"
        )
    where = f"its last checkpoint is {last}" if last else "it has no checkpoint yet"
    resume = f"continue with: codistill train --resume {run}"
    with contextlib.suppress(OSError):  # the terminal may be gone
        say(console, f"codistill: {stop.reason}: stopped; {where}; {resume}")
    return stop.status


def _resume_options(run: str, argv: list[str]) -> argparse.Namespace:
    """The options beside `--resume RUN`: the device, and where the images are now.

    Args:
        run: folder of the run.
        argv: the arguments without --resume and --max_time, which are here for the help.
    """
    parser = Parser(
        prog="codistill train",
        description="Continues a run that was interrupted, to the same weights.",
        allow_abbrev=False,
    )
    for name, about in _OWN.items():
        parser.add_argument(name, help=about, **_kind(name))
    add_places(parser)
    add_trust(parser)
    parser.add_argument("--loggers", metavar="NAMES", help="loggers (default: the run's)")
    options, rest = parser.parse_known_args(argv)
    if rest:
        raise InputError(
            f"--resume takes up a run as it was: leave out {' '.join(rest)}, or begin a new run "
            "from its weights: "
            f"codistill train --config {run}/config.yaml --weights {run} --out NEW"
        )
    return options
