"""`codistill reproduce`: the papers' tables, as comparisons that are ready to run."""

import argparse
from collections.abc import Iterator
from dataclasses import replace
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

    from codistill.comparing.comparison import Comparison, Row
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
    parser.add_argument(
        "--dry-run", action="store_true", help="show the runs and their cost; train nothing"
    )
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
        _show(scaled, comparison)
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


def _show(plan: "ScaledTable", comparison: "Comparison") -> None:
    """Prints the rows and the estimated cost of each on this machine."""
    import torch

    from codistill.analysis.cost.step_time import TIMES
    from codistill.reporting.text import text_table, wrapped
    from codistill.runs.loggers import require_loggers
    from codistill.training.device import choose_device

    require_loggers(comparison.rows[0].config)  # the same for all rows
    rows, seeds = comparison.rows, len(comparison.seeds)
    table: list[list[str]] = []
    total = 0.0
    for row, seconds in zip(rows, _seconds_per_image(rows), strict=True):
        c = row.config
        cost = seconds * (plan.images * plan.epochs / 3600 if plan.images else 1000)
        total += cost * seeds
        published = comparison.published.get(row.label, {}).get("value", "-")
        facts = [f"  {c.network}", str(c.peers), str(c.shared), published, f"{cost:,.2f}"]
        table += [[row.label], facts]
    unit = "h a run" if plan.images else "s per 1,000"
    print(text_table(("  networks", "peers", "shared", "published", unit), table))
    device = choose_device(rows[0].config.device)
    where = (
        f"{device}, {torch.get_num_threads()} thread(s)" if device.type == "cpu" else str(device)
    )
    together = f", together about {total:,.1f} h one after the other" if plan.images else ""
    images = f"{plan.images:,} images" if plan.images else "your images"
    print()
    text = (
        f"{len(rows) * seeds} runs: seeds {', '.join(map(str, comparison.seeds))}; {plan.epochs} "
        f"epochs of {images} of {plan.data}{together}. Estimated from the fastest of {TIMES} "
        f"training steps of each row, timed now ({where}); without evaluation and reading of "
        "images. Nothing was trained."
    )
    print(wrapped(text))


def _seconds_per_image(rows: "list[Row]") -> Iterator[float]:
    """Seconds per image of a training step of each row: the fastest after a first step."""
    from codistill.analysis.cost.step_time import TIMES, seconds_per_image
    from codistill.settings.build_data import describe_data
    from codistill.training.device import use_device

    classes, image_size = describe_data(rows[0].config.data)
    for row in rows:
        device = use_device(row.config.device, row.config.threads)
        yield seconds_per_image(
            replace(row.config, pretrained=False), classes, image_size, device, TIMES
        )


def _head(console: "Console", scaled: "ScaledTable") -> None:
    say(console, f"{scaled.table.name}: {scaled.tree['note']}")
