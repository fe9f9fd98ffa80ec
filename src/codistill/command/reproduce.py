"""`codistill reproduce`: the papers' tables, as comparisons that are ready to run."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codistill.command.compare import compare
from codistill.command.options import Parser, add_launch_options, add_out, add_places
from codistill.command.stopping import Stopping
from codistill.errors import InputError
from codistill.files import place_of
from codistill.messages import say

if TYPE_CHECKING:
    from rich.console import Console

    from codistill.comparing.published_tables import ScaledTable


def main(argv: list[str]) -> int:
    """`codistill reproduce [TABLE]`."""
    stop = Stopping()
    parser = Parser(
        prog="codistill reproduce",
        description="Runs a table of a paper as a comparison: codistill compare with the table's "
        "networks, methods and seeds, beside the published figures.",
    )
    parser.add_argument("table", nargs="?", help="name of the table; without one, all are listed")
    parser.add_argument(
        "--scale",
        choices=["paper", "short"],
        default="paper",
        help="the paper's scale (default), or smaller networks and few epochs, which a CPU can "
        "finish; its numbers are not comparable to published ones",
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", metavar="SEED", help="seeds to train (default: the table's)"
    )
    add_out(parser, "folder of the runs and the report (default: runs/TABLE or runs/TABLE_short)")
    add_launch_options(parser)
    add_places(parser, "the table")
    for name, kind in (("precision", str), ("threads", int), ("loggers", str)):
        text = f"as in codistill train --{name} (default: the table's)"
        parser.add_argument(f"--{name}", type=kind, metavar="X", help=text)
    options = parser.parse_args(argv)
    if options.table is None:
        list_tables()
        return 0
    over = _given(options, "device", "precision", "threads", "loggers")
    if data := _given(options, "root", "workers"):
        over["data"] = data

    from rich.console import Console

    from codistill.comparing.comparison import read_comparison
    from codistill.comparing.published_tables import table_named
    from codistill.comparing.sections import seeds_in

    try:
        seeds = options.seeds and seeds_in(options.seeds)
    except InputError as error:
        raise InputError(f"--seeds: {error}") from error
    scaled = table_named(options.table).at(options.scale, seeds, over)
    name = scaled.table.name
    name += "_short" if scaled.scale == "short" else ""
    folder = place_of(options.out) if options.out else Path("runs", name)
    stop.end_in_time(options.max_time)
    launch = options.parallel, options.launcher, options.report_only, stop
    stored = folder / "comparison.yaml"
    if options.report_only and not options.dry_run and stored.exists():
        return compare(read_comparison(stored, trust_code=False), folder, *launch)
    console = Console(stderr=not options.dry_run)
    _head(console, scaled)
    if scaled.data == "folder" and not over.get("data", {}).get("root"):
        raise InputError(
            "the short version of this table uses your own images: give --data.root DIR"
        )
    comparison = scaled.comparison()
    if options.dry_run:
        from codistill.command.plan import show_plan
        from codistill.runs.loggers import require_loggers

        require_loggers(comparison.rows[0].config)  # the same for all rows
        published = {label: figure["value"] for label, figure in comparison.published.items()}
        show_plan(comparison.rows, comparison.seeds, scaled.images, published=published)
        return 0
    status = compare(comparison, folder, *launch)
    _head(console, scaled)
    return status


def list_tables() -> None:
    """Prints each table and its length at both scales."""
    from codistill.comparing.published_tables import tables

    for name, table in tables().items():
        print(f"{name}\n  {table.about}")
        for scale in ("paper", "short"):
            print(f"  {scale}: {table.at(scale, None, {}).size()}")
    print("\ncodistill reproduce TABLE --dry-run estimates the hours on your machine")


def _given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    return {n: value for n in names if (value := getattr(options, n)) is not None}


def _head(console: "Console", scaled: "ScaledTable") -> None:
    say(console, f"{scaled.table.name}: {scaled.tree['note']}")
