"""The options of `codistill reproduce`. PyTorch is imported where it is needed."""

import argparse
from typing import Any

from codistill.errors import InputError

_SETTINGS = ("device", "precision", "threads", "loggers", "data.root", "data.workers")


def reproduce(argv: list[str], parser: argparse.ArgumentParser) -> int:
    """`codistill reproduce [TABLE] [--scale short] ...`."""
    parser.add_argument("table", nargs="?", help="which; without one, all are listed")
    parser.add_argument(
        "--scale",
        choices=["paper", "short"],
        default="paper",
        help="the paper's; or smaller networks and few epochs, which a CPU can finish, and whose "
        "numbers are not comparable to published ones",
    )
    parser.add_argument("--seeds", type=int, nargs="+", metavar="SEED", help="others than its own")
    parser.add_argument("--out", help="folder (default: runs/TABLE or runs/TABLE_short)")
    parser.add_argument("--parallel", type=int, metavar="N", help="runs at a time (default: 1)")
    parser.add_argument(
        "--launcher", choices=["processes", "slurm", "submitit-local"], default="processes"
    )
    parser.add_argument("--report-only", action="store_true", help="train nothing")
    parser.add_argument("--dry-run", action="store_true", help="show the runs and their cost")
    for name in _SETTINGS:
        number = int if name in ("threads", "data.workers") else str
        parser.add_argument(f"--{name}", type=number, help="as of `codistill train`")
    options = parser.parse_args(argv)
    if options.table is None:
        list_tables()
        return 0
    if options.parallel is not None and options.parallel < 1:
        raise InputError(f"--parallel is {options.parallel}: give 1 or more")

    from codistill.reproduce import reproduce as run

    return run(options, _settings(options))


def list_tables() -> None:
    """Each table with how long it is at both scales."""
    from codistill.comparing.published_tables import tables

    for name, table in tables().items():
        print(f"{name}\n  {table.about}")
        for scale in ("paper", "short"):
            print(f"  {scale}: {table.at(scale, None, {}).size()}")
    print("\ncodistill reproduce TABLE --dry-run estimates the hours on your machine")


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """Those that were given, in groups."""
    settings: dict[str, Any] = {}
    for name in _SETTINGS:
        if (value := getattr(options, name)) is not None:
            group, _, key = name.rpartition(".")
            (settings.setdefault(group, {}) if group else settings)[key] = value
    return settings
