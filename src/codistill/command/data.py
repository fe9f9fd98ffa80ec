"""`codistill data check`: looks at a data set before anything is trained on it."""

import statistics
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from codistill.command.options import READING, Parser, add_reading, add_workers, refuse_unknown
from codistill.messages import counted, printable, quoted

if TYPE_CHECKING:
    from codistill.data.check import Findings, Image

_WIDTH = 80
_CLASSES = 20  # up to so many are all counted, of more the smallest and largest
_NAME = 40  # letters of a class's name
_LINES = 20  # of one kind of finding


def main(argv: list[str]) -> int:
    """`codistill data check DATA`; 1 where something has to be repaired."""
    parser = Parser(prog="codistill data", description="Checks images before training.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    check = commands.add_parser(
        "check",
        help="read every image of a data set once",
        description="Reads every image once, and reports what has to be repaired.",
    )
    check.add_argument("place", metavar="DATA", help="folder, file or name, as for train")
    check.add_argument(
        "--data", metavar="NAME", help="name of the data set (default: found by what is there)"
    )
    add_reading(check)
    add_workers(check, default="one for each core")
    refuse_unknown("command", argv, ["check"])
    options = parser.parse_args(argv)
    if options.command is None:
        parser.print_help()
        return 0

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from codistill.data.batches.workers import available_cores
    from codistill.data.check import check_dataset
    from codistill.data.recognise import Place, recognise
    from codistill.settings.build_data import open_with
    from codistill.settings.data_config import DataConfig

    place = Place(options.data, options.place) if options.data else recognise(options.place)
    given = {name: getattr(options, name) for name in READING}
    dataset = open_with(DataConfig(*place, **given))
    workers = available_cores() if options.workers is None else options.workers
    console = Console(stderr=True)
    columns = (TextColumn("reading"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("images", total=sum(map(len, dataset.splits.values())))
        found = check_dataset(dataset, workers, lambda n: progress.advance(task, n))
    lines = [*dataset.taken(), "", *_report(found, dataset.classes)]
    print("\n".join(_wrapped(map(printable, lines))))
    return 1 if found.mend else 0


def _report(found: "Findings", classes: Sequence[str]) -> Iterator[str]:
    yield from _counts(found, classes).splitlines()
    readable = [image for image in found.images if image.size is not None]
    if readable:
        yield ""
        yield from _sizes(readable)
    for title, lines in (("To be repaired", found.mend), ("To be considered", found.consider)):
        if lines:
            yield ""
            yield f"{title}:"
            yield from (f"- {line}" for line in lines[:_LINES])
            if len(lines) > _LINES:
                yield f"- and {len(lines) - _LINES:,} more like these"
    if not found.mend:
        yield ""
        yield "Nothing has to be repaired."


def _counts(found: "Findings", classes: Sequence[str]) -> str:
    from codistill.reporting.text import text_table

    splits = list(found.counts)

    def row(c: int) -> list[str]:
        name = classes[c] if len(classes[c]) <= _NAME else f"{classes[c][: _NAME - 3]}..."
        return [quoted([name]), *(f"{found.counts[split][c]:,}" for split in splits)]

    ordered = sorted(range(len(classes)), key=lambda c: (-found.counts[splits[0]][c], c))
    rows = [row(c) for c in ordered]
    if (between := len(rows) - _CLASSES) > 0:
        half = _CLASSES // 2
        rows = [
            *rows[:half],
            [f"... and {counted(between, 'class', 'classes')} between these"],
            *rows[-half:],
        ]
    total = [
        counted(len(classes), "class", "classes"),
        *(f"{sum(found.counts[split]):,}" for split in splits),
    ]
    head = ["class", *("images" if split == "all" else split for split in splits)]
    return text_table(head, [*rows, total])


def _sizes(images: "Sequence[Image]") -> Iterator[str]:
    from codistill.data.balance import imbalance

    sizes = [image.size for image in images if image.size is not None]
    for what, values in (
        ("width", [width for width, _ in sizes]),
        ("height", [height for _, height in sizes]),
        ("short side", [min(size) for size in sizes]),
    ):
        middle = statistics.median_low(values)
        yield f"{what:<11}{min(values):,} to {max(values):,} pixels, median {middle:,}"
    modes = Counter(image.mode for image in images)
    yield f"{'modes':<11}" + ", ".join(f"{count:,} {mode}" for mode, count in modes.most_common())
    ratio = imbalance(list(Counter(image.label for image in images).values()))
    yield f"{'imbalance':<11}{ratio:,.1f} (images of the largest class over the smallest)"


def _wrapped(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        indent = "  " if line.startswith("- ") else " " * 11
        yield from (
            textwrap.wrap(line, _WIDTH, subsequent_indent=indent, break_on_hyphens=False)
            if len(line) > _WIDTH
            else [line]
        )
