"""How long the command takes to start: its help, and a training's first step.

    python benchmarks/start.py

The first step is over when its checkpoint is written. `codistill train` runs with a checkpoint due
at once, on a made-up CIFAR-100 of full size that an earlier run has left in the cache.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from figures import Figure, arguments, report

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from data_fakes import Fake, write_extracted  # noqa: E402

COMMAND = [sys.executable, "-m", "codistill"]


def main(argv: Sequence[str] | None = None) -> list[Figure]:
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--network", default="resnet32")
    parser.add_argument("--images", type=int, default=50_000, help="to train on")
    return report(parser, measure, argv)


def measure(options: argparse.Namespace) -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = write_cifar(folder, options.images)
        environment = os.environ | {"CODISTILL_CACHE": str(folder / "cache")}
        first = [
            first_step(folder / f"run{i}", images, options, environment)
            for i in range(options.rounds + 1)
        ]
        helps = [seconds_of_help(options, environment) for _ in range(options.rounds + 1)]
    return [
        Figure("first step, nothing cached", first[0], unit="s"),
        of("first step on cached data", first[1:], "<= 5"),
        of("codistill --help", helps[1:], "<= 1"),
    ]


def of(name: str, seconds: list[float], target: str) -> Figure:
    middle, best = statistics.median(seconds), min(seconds)
    return Figure(name, middle, best=best, unit="s", target=target, kept=0.5, better="lower")


def now(clock: str) -> float:
    """The wall clock, or the processor time of all processes that have ended."""
    if clock == "wall":
        return time.perf_counter()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def seconds_of_help(options: argparse.Namespace, environment: dict[str, str]) -> float:
    begin = now(options.clock)
    subprocess.run([*COMMAND, "--help"], env=environment, capture_output=True, check=True)
    return now(options.clock) - begin


def first_step(
    run: Path, images: Path, options: argparse.Namespace, environment: dict[str, str]
) -> float:
    """Seconds from the start of the command until it is stopped, its first checkpoint written."""
    settings = {
        "data.name": "cifar100",
        "data.root": images,
        "data.val_fraction": 0,
        "network": options.network,
        "shared": 2,
        "threads": options.threads,
        "checkpoint_seconds": 0,
        "out": run,
    }
    arguments = [f"--{name}={value}" for name, value in settings.items()]
    errors_file = run.with_suffix(".errors")
    begin = now(options.clock)
    with errors_file.open("w") as errors:
        process = subprocess.Popen(
            [*COMMAND, "train", *arguments],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        try:
            while not list(run.glob("checkpoints/*.pt")):
                if process.poll() is not None:
                    sys.exit(f"{process.args} ended:\n{errors_file.read_text()}")
                time.sleep(0.005)
        finally:
            process.kill()
            process.wait()
    return now(options.clock) - begin


def write_cifar(root: Path, images: int) -> Path:
    """Writes random images in the form of the extracted Python version; returns their folder."""
    rng = np.random.default_rng(0)
    splits = [rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8) for n in (images, images // 5)]
    train, test = splits
    labels = [[i % 100 for i in range(len(split))] for split in splits]
    return write_extracted(root, Fake("cifar100", train, labels[0], test, labels[1]))


if __name__ == "__main__":
    main()
