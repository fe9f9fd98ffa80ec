"""Trains for an hour in one process, and shows whether memory, open files and threads stay flat.

    python tests/soak.py [--minutes 60]

Half of the time short runs follow one another, each with its evaluation and report, in turn of five
methods and on photographs that a worker process reads. In the other half one long run is trained.
Exit status 1 if something grows.
"""

import argparse
import contextlib
import gc
import io
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from chaos import METHODS, TINY
from photo_fakes import write_classes

from codistill.command.main import main as command
from codistill.runs.run import Run
from codistill.settings.arguments import parse_config

_MAY_GROW = {"MiB": 16.0, "open files": 0.0, "threads": 0.0, "processes": 0.0}
"""By how much the median of the last tenth may be above that of the second tenth."""


def figures() -> dict[str, float]:
    """What this process holds now: memory in MiB, open files, threads, processes it started."""
    gc.collect()
    me = Path("/proc/self")
    pages = int((me / "statm").read_text().split()[1])
    children = (x for x in me.glob("task/*/children") for _ in x.read_text().split())
    return {
        "MiB": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        "open files": len(os.listdir(me / "fd")),
        "threads": len(os.listdir(me / "task")),
        "processes": sum(1 for _ in children),
    }


def short_runs(folder: Path, end: float) -> Iterator[dict[str, float]]:
    """Trains, evaluates and reports one run after the other; yields the figures after each round.

    A round is one run of each method, and one on photographs.
    """
    photos = folder / "photos"
    for split in ("train", "test"):
        write_classes(photos / split, {"cat": 12, "dog": 12}, seed=len(split))
    streamed = "--data folder --data.image_size 16 --data.workers 1 --network resnet8 --peers 2 "
    streamed += "--method dml --epochs 2 --batch_size 8 --threads 1 --loggers none"
    kinds = [[*TINY, "--method", method] for method in METHODS]
    kinds.append([*streamed.split(), "--data.root", str(photos)])
    while time.monotonic() < end:
        for i, options in enumerate(kinds):
            run = folder / f"run{i}"
            shutil.rmtree(run, ignore_errors=True)
            well("train", *options, "--out", run)
            well("evaluate", run, "--device", "cpu")
            well("report", run, "--no-analysis", "--out", folder / "page")
        yield figures()


def long_run(folder: Path, end: float) -> Iterator[dict[str, float]]:
    """Trains one run, and yields the figures after every epoch."""
    options = [*TINY, "--method", "ffl", "--epochs", "1000000", "--batch_size", "32"]
    config = parse_config([*options, "--out", str(folder / "long")], "soak")
    for _ in Run.create(config).train(stop=lambda: time.monotonic() > end):
        yield figures()


def well(*arguments: object) -> None:
    """Calls a command, which has to end well."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        status = command([str(a) for a in arguments])
    if status:
        raise RuntimeError(f"exit status {status}: {printed.getvalue()[-500:]}")


def grown(seen: list[dict[str, float]]) -> dict[str, tuple[float, float]]:
    """For each figure the medians of the second and of the last tenth of what was seen."""
    tenth = max(1, len(seen) // 10)
    early, late = seen[tenth : 2 * tenth] or seen, seen[-tenth:]
    return {
        name: (statistics.median(x[name] for x in early), statistics.median(x[name] for x in late))
        for name in _MAY_GROW
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    minutes = parser.parse_args(argv).minutes
    torch.set_num_threads(1)
    held = True
    with tempfile.TemporaryDirectory(prefix="soak") as folder:
        os.environ["CODISTILL_CACHE"] = f"{folder}/cache"
        for kind in (short_runs, long_run):
            seen, shown = [], 0.0
            for now in kind(Path(folder), time.monotonic() + 30 * minutes):
                seen.append(now)
                if time.monotonic() - shown > 60:
                    shown = time.monotonic()
                    line = ", ".join(f"{value:.0f} {name}" for name, value in now.items())
                    print(f"{kind.__name__} {len(seen)}: {line}", flush=True)
            for name, (early, late) in grown(seen).items():
                flat = late - early <= _MAY_GROW[name]
                held &= flat
                print(
                    f"{kind.__name__}, {len(seen)} times: {name} {early:.1f}, at the end "
                    f"{late:.1f}: {'flat' if flat else 'GROWN'}",
                    flush=True,
                )
    return not held


if __name__ == "__main__":
    sys.exit(main())
