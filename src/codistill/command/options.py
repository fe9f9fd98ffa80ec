"""Options that several commands share. PyTorch is imported where it is needed."""

import argparse
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NoReturn

from codistill.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from codistill.reporting.page.measure import MeasureOptions
    from codistill.runs.run import Run
    from codistill.training.placement import Where


class Parser(argparse.ArgumentParser):
    """Answers bad arguments with one line, as all bad input is answered."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {message} (see {self.prog} --help)")


def refuse_unknown(what: str, argv: Sequence[str], known: Iterable[str]) -> None:
    """Raises InputError where the first word of the arguments is no known name."""
    word = next((argument for argument in argv if not argument.startswith("-")), None)
    if word is not None and word not in (known := list(known)):
        raise InputError(f"{what} {word!r} is not known: {did_you_mean(word, known)}")


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def not_negative(text: str) -> int:
    """A whole number, 0 or more."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more")
    return int(text)


def add_out(parser: argparse.ArgumentParser, about: str, default: str | None = None) -> None:
    parser.add_argument("--out", metavar="DIR", help=about, default=default)


READING = {
    "label_column": ("COLUMN", "column of the labels (default: found by its name)"),
    "image_column": ("COLUMN", "column of the images or paths (default: found by its name)"),
    "splits": ("NAMES", "names of the splits, as in train=a,test=b; none: undivided"),
    "bits": ("N", "bits that 16-bit grey images use, 8 to 16 (default: 16)"),
}


def add_reading(parser: argparse.ArgumentParser) -> None:
    """How images, labels and splits are found."""
    for option, (metavar, about) in READING.items():
        kind = positive if option == "bits" else str
        parser.add_argument(f"--data.{option}", dest=option, metavar=metavar, type=kind, help=about)


def add_workers(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--data.workers",
        dest="workers",
        metavar="N",
        type=not_negative,
        help=f"processes that read images; 0: none besides this one (default: {default})",
    )


def add_places(parser: argparse.ArgumentParser, of: str = "the run") -> None:
    """Where to compute and where the images are.

    Args:
        parser: gets the options.
        of: what has these settings already.
    """
    parser.add_argument(
        "--device", help=f"device to compute on, such as cpu or cuda:1 (default: {of}'s)"
    )
    parser.add_argument(
        "--data.root",
        dest="root",
        metavar="DIR",
        help=f"folder or file that now holds the images (default: {of}'s)",
    )
    add_workers(parser, default=f"{of}'s")


def open_run(path: str, options: argparse.Namespace, placement: "Where" = "data") -> "Run":
    """A run, with the places that the options of `add_places` give."""
    from codistill.runs.run import Run

    loggers = getattr(options, "loggers", None)
    trusted = options.trust_code == "true"
    return Run(path, options.device, options.root, options.workers, loggers, trusted, placement)


TRUST_CODE = (
    "true: import code that a run's folder or a recipe names as package.module:name. Code named on "
    "the command line itself needs no trust (default: false)"
)


def add_trust(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trust_code", choices=["true", "false"], default="false", help=TRUST_CODE)


MAX_TIME = (
    "stop in time with a checkpoint and exit status 75, such as 3h30m or 90m; the same command "
    "continues. In a SLURM job its end is known without this option"
)


def add_launch_options(parser: argparse.ArgumentParser) -> None:
    """Whether and where runs are trained, and how many at a time."""
    parser.add_argument(
        "--dry-run", action="store_true", help="show the runs and their cost; train nothing"
    )
    parser.add_argument(
        "--parallel",
        type=positive,
        metavar="N",
        help="runs that train at the same time (default: 1; on a cluster all)",
    )
    parser.add_argument(
        "--launcher",
        choices=["processes", "slurm", "submitit-local"],
        default="processes",
        help="what starts the runs: processes of this machine (default), jobs of a SLURM cluster, "
        "or submitit's own processes",
    )
    parser.add_argument("--max_time", metavar="TIME", help=MAX_TIME)
    parser.add_argument(
        "--report-only", action="store_true", help="train nothing; report on the finished runs"
    )


def add_page_options(parser: argparse.ArgumentParser) -> None:
    """What is measured of the networks for the page."""
    parser.add_argument(
        "--no-analysis",
        action="store_true",
        help="do not measure the networks on the test images for report.html",
    )
    parser.add_argument(
        "--images",
        type=_places,
        default=(),
        metavar="3,17",
        help="test images to show with Grad-CAM, counted from 0 (default: some on which "
        "classifiers disagree)",
    )


def _places(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: give places from 0, with commas, such as 3,17")
    return tuple(dict.fromkeys(map(int, parts)))


def measure_options(options: argparse.Namespace) -> "MeasureOptions | None":
    """How the networks are measured for the page; None: not at all."""
    from codistill.reporting.page.measure import MeasureOptions

    if options.no_analysis:
        return None
    device, root, workers = (getattr(options, n, None) for n in ("device", "root", "workers"))
    trusted = getattr(options, "trust_code", "true") == "true"  # compare: its file has the names
    return MeasureOptions(options.images, device, root, workers, trusted)
