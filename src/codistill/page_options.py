"""What commands ask of the page on runs. PyTorch is imported where it is needed."""

import argparse
from typing import TYPE_CHECKING

from codistill.errors import InputError

if TYPE_CHECKING:
    from codistill.reporting.page import How


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


def how_to_measure(options: argparse.Namespace) -> "How | None":
    """How the networks are to be measured; None where they are not."""
    from codistill.reporting.page import How

    if options.no_analysis:
        return None
    given = vars(options)
    root, workers = given.get("data.root"), given.get("data.workers")
    return How(_places(options.images), given.get("device"), root, workers)
