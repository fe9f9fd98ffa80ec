"""`codistill reproduce`: the papers' tables, as comparisons that are ready to run."""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from codistill.analysis.cost.step_time import TIMES, seconds_per_image
from codistill.compare import compare
from codistill.comparing.comparison import Comparison, Row
from codistill.comparing.published_tables import (
    Plan,
    comparison_of,
    table_named,
    temporary_file,
)
from codistill.comparing.sections import seeds_in
from codistill.errors import InputError
from codistill.runs.loggers import require_loggers
from codistill.settings.build_data import describe_data
from codistill.training.device import choose_device


def reproduce(options: argparse.Namespace, over: dict[str, Any]) -> int:
    """Trains a table's runs and writes its report; returns the exit status of `compare`.

    Args:
        options: table, scale, seeds, out, parallel, launcher, report_only, dry_run.
        over: settings over the table's.
    """
    if options.seeds:
        _require_seeds(options.seeds)
    plan = table_named(options.table).at(options.scale, options.seeds, over)
    name = plan.table.name + ("_short" if plan.scale == "short" else "")
    folder = Path(options.out).expanduser() if options.out else Path("runs", name)
    console = Console(stderr=not options.dry_run)
    stored = folder / "comparison.yaml"
    if options.report_only and not options.dry_run and stored.exists():
        return compare(stored, folder, options.parallel, options.launcher, True)
    _say(console, plan.table.name, plan.tree["note"])
    if plan.data == "folder" and not over.get("data", {}).get("root"):
        raise InputError("this table is short for images of yours: give --data.root DIR")
    with temporary_file(plan.table.name) as file:  # `compare` copies it into the locked folder
        comparison = comparison_of(plan, file)
        if options.dry_run:
            _show(plan, comparison, console)
            return 0
        status = compare(file, folder, options.parallel, options.launcher, options.report_only)
    _say(console, plan.table.name, plan.tree["note"])
    return status


def _require_seeds(seeds: list[int]) -> None:
    try:
        seeds_in(seeds)
    except InputError as error:
        raise InputError(f"--seeds: {error}") from error


def _show(plan: Plan, comparison: Comparison, console: Console) -> None:
    """The rows, and what each would cost on this machine."""
    require_loggers(comparison.rows[0].config)  # the same for all rows
    rows, seeds = comparison.rows, len(comparison.seeds)
    table = Table(box=SIMPLE_HEAD)
    for name in ("row", "networks"):
        table.add_column(name, overflow="fold")
    for name in ("peers", "shared", "published", "h a run" if plan.images else "s per 1,000"):
        table.add_column(name, justify="right")
    total = 0.0
    for row, seconds in zip(rows, _seconds_per_image(rows), strict=True):
        c = row.config
        cost = seconds * (plan.images * plan.epochs / 3600 if plan.images else 1000)
        total += cost * seeds
        published = comparison.published.get(row.label, {}).get("value", "-")
        cells = [c.network, str(c.peers), str(c.shared), published, f"{cost:,.2f}"]
        table.add_row(Text(row.label), *cells)
    console.print(table)
    device = choose_device(rows[0].config.device)
    where = (
        f"{device}, {torch.get_num_threads()} thread(s)" if device.type == "cpu" else str(device)
    )
    together = f", together about {total:,.1f} h one after the other" if plan.images else ""
    images = f"{plan.images:,} images" if plan.images else "your images"
    text = (
        f"{len(rows) * seeds} runs: seeds {', '.join(map(str, comparison.seeds))}; {plan.epochs} "
        f"epochs of {images} of {plan.data}{together}. Estimated from the fastest of {TIMES} "
        f"training steps of each row, timed now ({where}); without evaluation and reading of "
        "images. Nothing was trained."
    )
    console.print(text, highlight=False, markup=False)


def _seconds_per_image(rows: list[Row]) -> Iterator[float]:
    """Of a training step of each row on its device: the fastest after a first one."""
    classes, image_size = describe_data(rows[0].config.data)
    for row in rows:
        device = choose_device(row.config.device)
        if row.config.threads:
            torch.set_num_threads(row.config.threads)
        yield seconds_per_image(
            replace(row.config, pretrained=False), classes, image_size, device, TIMES
        )


def _say(console: Console, name: str, note: str) -> None:
    console.print(f"{name}: {note}", highlight=False, markup=False, soft_wrap=True)
