"""Options that several commands share. PyTorch is imported where it is needed."""

import argparse
from typing import TYPE_CHECKING, NoReturn

from codistill.errors import InputError

if TYPE_CHECKING:
    from codistill.reporting.page.measure import MeasureOptions
    from codistill.runs.run import Run


class Parser(argparse.ArgumentParser):
    """Answers bad arguments with one line, as all bad input is answered."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {message} (see {self.prog} --help)")


def add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", help="another than the run was made with")
    parser.add_argument("--data.root", metavar="ROOT", help="where the same images are now")
    parser.add_argument(
        "--data.workers", metavar="N", type=int, help="processes that read images now"
    )


def open_run(path: str, options: argparse.Namespace) -> "Run":
    """A run, with the places that options tell."""
    from codistill.runs.run import Run

    root, workers = (getattr(options, f"data.{name}") for name in ("root", "workers"))
    return Run(path, options.device, root, workers, getattr(options, "loggers", None))


def add_launch_options(parser: argparse.ArgumentParser) -> None:
    """Where runs are trained, and how many at a time."""
    parser.add_argument(
        "--parallel", type=positive, metavar="N", help="runs at a time (default: 1)"
    )
    parser.add_argument(
        "--launcher",
        choices=["processes", "slurm", "submitit-local"],
        default="processes",
        help="processes of this machine; jobs of a SLURM cluster; submitit's own processes",
    )
    parser.add_argument(
        "--report-only", action="store_true", help="report on what is there; train nothing"
    )


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def add_page_options(parser: argparse.ArgumentParser) -> None:
    """What the page is to measure of the networks."""
    parser.add_argument(
        "--no-analysis",
        action="store_true",
        help="do not measure the networks on the test images for report.html",
    )
    parser.add_argument(
        "--images",
        metavar="3,17",
        help="test images to show with Grad-CAM (default: some on which classifiers disagree)",
    )


def _places(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    try:
        places = tuple(int(part) for part in text.split(","))
    except ValueError:
        places = (-1,)
    if min(places) < 0:
        raise InputError(f"--images is {text!r}: give places from 0, with commas, such as 3,17")
    return tuple(dict.fromkeys(places))


def how_to_measure(options: argparse.Namespace) -> "MeasureOptions | None":
    """How the networks are to be measured; None where they are not."""
    from codistill.reporting.page.measure import MeasureOptions

    if options.no_analysis:
        return None
    given = vars(options)
    root, workers = given.get("data.root"), given.get("data.workers")
    return MeasureOptions(_places(options.images), given.get("device"), root, workers)
