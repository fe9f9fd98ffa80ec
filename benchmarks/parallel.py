"""Several runs side by side on one device: the images per second of all of them together.

    python benchmarks/parallel.py --runs 1 2 --threads 2               # on a CPU
    python benchmarks/parallel.py --runs 1 2 4 8 --device cuda --ways "bf16, cuda_graphs"

This measures the gain of `codistill compare --parallel N`: small networks leave a large GPU idle,
and threads of a CPU wait for each other. Every run is a separate process that trains FFL on small
images; N of them have `--threads` together. The time is wall time until the last has finished.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch

from figures import Figure, arguments, report
from gpu import WAYS, build_ffl
from interleave import WARM_UP_STEPS, Contender, Worker, interleave, ratio, serve, timed
from ours import batches, epochs, random_split


def main(argv: Sequence[str] | None = None) -> list[Figure]:
    parser = arguments(__doc__, rounds=6)
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--ways", choices=WAYS, default="fp32")
    parser.add_argument("--depth", type=int, default=32, help="of the ResNets")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=8, help="of each run in a round")
    return report(parser, measure, argv)


def measure(options: argparse.Namespace) -> list[Figure]:
    with ExitStack() as stack:
        found = {f"{n} at a time": together(n, options, stack) for n in options.runs}
        seconds = interleave(found, options.rounds, -(-WARM_UP_STEPS // options.steps))
    each = options.steps * options.batch
    per_image = {
        name: [value / (n * each) for value in values]
        for n, (name, values) in zip(options.runs, seconds.items(), strict=True)
    }
    one, *others = per_image
    return [
        *(
            Figure(f"{name}, all", 1 / statistics.median(values), unit="images/s")
            for name, values in per_image.items()
        ),
        *(ratio(f"{n} against {one}", per_image[one], per_image[n]) for n in others),
    ]


def together(n: int, options: argparse.Namespace, stack: ExitStack) -> Contender:
    """A round of n runs at once."""
    settings = (options.device, options.ways, options.depth, options.batch, options.steps)
    threads = max(1, options.threads // n)
    command = [sys.executable, str(Path(__file__)), "worker", str(threads), *map(str, settings)]
    workers = [stack.enter_context(Worker(command)) for _ in range(n)]

    def contender() -> float:
        begin = time.perf_counter()
        for worker in workers:
            worker.begin()
        for worker in workers:
            worker.wait()
        return time.perf_counter() - begin

    return contender


def work(threads: str, device: str, way: str, depth: str, batch: str, steps: str) -> None:
    """The process of one run; a round is an epoch."""
    torch.set_num_threads(int(threads))
    split = random_split(int(batch) * int(steps)).to(torch.device(device))
    options = dict(WAYS[way])
    method = build_ffl(int(depth), options.pop("compile", False)).to(device)
    serve(timed(partial(next, epochs(method, batches(split, int(batch)), **options))))


if __name__ == "__main__":
    work(*sys.argv[2:]) if sys.argv[1:2] == ["worker"] else main()
