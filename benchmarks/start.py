"""How long the command takes to start: its help, and a training's first step.

    python benchmarks/start.py

The first step is over when its checkpoint is written: `codistill train` with a checkpoint due at
once, on a made-up CIFAR-100 of full size that an earlier run has left in the cache.
"""

import argparse
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from figures import Figure, arguments, report

COMMAND = [sys.executable, "-m", "codistill.cli"]


def main(argv: Sequence[str] | None = None) -> list[Figure]:
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--network", default="resnet32")
    parser.add_argument("--images", type=int, default=50_000, help="to train on")
    return report(parser, measure, argv)


def measure(options: argparse.Namespace) -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_cifar(folder / "cifar-100-python", options.images)
        environment = os.environ | {"CODISTILL_CACHE": str(folder / "cache")}
        first = [first_step(folder, i, options, environment) for i in range(options.rounds + 1)]
        helps = [seconds_of_help(environment) for _ in range(options.rounds + 1)]
    return [
        Figure("first step, nothing cached", first[0], unit="s"),
        of("first step on cached data", first[1:], "<= 5"),
        of("codistill --help", helps[1:], "<= 1"),
    ]


def of(name: str, seconds: list[float], target: str) -> Figure:
    middle, best = statistics.median(seconds), min(seconds)
    return Figure(name, middle, best=best, unit="s", target=target, kept=0.5, better="lower")


def seconds_of_help(environment: dict[str, str]) -> float:
    begin = time.perf_counter()
    subprocess.run([*COMMAND, "--help"], env=environment, capture_output=True, check=True)
    return time.perf_counter() - begin


def first_step(
    folder: Path, i: int, options: argparse.Namespace, environment: dict[str, str]
) -> float:
    """Seconds from the start of the command to the checkpoint of its first step."""
    run = folder / f"run{i}"
    settings = {
        "data.name": "cifar100",
        "data.root": folder / "cifar-100-python",
        "network": options.network,
        "shared": 2,
        "threads": options.threads,
        "checkpoint_seconds": 0,
        "out": run,
    }
    arguments = [f"--{name}={value}" for name, value in settings.items()]
    begin = time.perf_counter()
    with (folder / "errors").open("w") as errors:
        process = subprocess.Popen(
            [*COMMAND, "train", *arguments],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        try:
            while not list(run.glob("checkpoints/*.pt")):
                if process.poll() is not None:
                    sys.exit(f"{process.args} ended:\n{(folder / 'errors').read_text()}")
                time.sleep(0.005)
            return time.perf_counter() - begin
        finally:
            process.terminate()
            process.wait()


def write_cifar(folder: Path, images: int) -> None:
    """Random images in the form of the extracted python version."""
    folder.mkdir()
    rng = torch.Generator().manual_seed(0)
    for name, n in (("train", images), ("test", images // 5)):
        rows = torch.randint(256, (n, 3072), dtype=torch.uint8, generator=rng).numpy()
        labels = {"fine_labels": [i % 100 for i in range(n)], "coarse_labels": [0] * n}
        (folder / name).write_bytes(pickle.dumps({"data": rows} | labels, protocol=2))
    names = [f"class {i}" for i in range(100)]
    meta = {"fine_label_names": names, "coarse_label_names": names[:20]}
    (folder / "meta").write_bytes(pickle.dumps(meta, protocol=2))


if __name__ == "__main__":
    main()
