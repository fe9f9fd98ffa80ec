"""DML's whole training loop: ours against the libraries on PyPI that have one.

    make benchmarks/.venv-libraries/installed
    python benchmarks/libraries.py --threads 1

The other loops run in separate processes with an environment of their own (`library_worker.py`), in
turn with ours. Every loop trains the same ResNets on as many images with the same augmentation.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import codistill
from figures import Figure, arguments, report
from interleave import WARM_UP_STEPS, Contender, Worker, interleave, rates, ratio, timed
from ours import batches, build_method, epochs, random_split

HERE = Path(__file__).parent
PYTHON = HERE / ".venv-libraries" / "bin" / "python"
TARGETS = {
    ("kd-lib", "fp32"): ">= 5",
    ("kd-lib", "bf16"): ">= 7.5",
    ("pytorch-dml", "fp32"): ">= 1.5",
    ("pytorch-dml", "bf16"): ">= 2.2",
}


def main(argv: Sequence[str] | None = None) -> list[Figure]:
    parser = arguments(__doc__, rounds=10)
    parser.add_argument("--depth", type=int, default=32, help="of the ResNets")
    parser.add_argument("--peers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=2, help="in a round")
    parser.add_argument("--python", type=Path, default=PYTHON, help="of the libraries")
    return report(parser, measure, argv)


def measure(options: argparse.Namespace) -> list[Figure]:
    if not options.python.exists():
        sys.exit(f"{options.python} is not there: make benchmarks/.venv-libraries/installed")
    with their_loops(options) as theirs:
        warm_up = -(-WARM_UP_STEPS // options.steps)
        seconds = interleave(theirs | our_loops(options), options.rounds, warm_up)
    images = options.steps * options.batch
    return rates(seconds, images) + [
        ratio(
            f"ours {precision} against {library}",
            seconds[library],
            seconds[f"ours {precision}"],
            target=target,
            kept=0.1,
        )
        for (library, precision), target in TARGETS.items()
    ]


@contextmanager
def their_loops(options: argparse.Namespace) -> Iterator[dict[str, Contender]]:
    names = ("depth", "peers", "batch", "steps", "threads", "clock")
    settings = [f"--{name}={getattr(options, name)}" for name in names]
    # codistill itself only for `plain.py`'s import of torchvision
    path = os.pathsep.join([str(Path(codistill.__file__).parents[1]), str(HERE)])
    environment = os.environ | {"PYTHONPATH": path}
    with ExitStack() as stack:
        yield {
            library: stack.enter_context(
                Worker(
                    [str(options.python), str(HERE / "library_worker.py"), library, *settings],
                    environment,
                )
            )
            for library in ("kd-lib", "pytorch-dml")
        }


def our_loops(options: argparse.Namespace) -> dict[str, Contender]:
    split = random_split(options.steps * options.batch)
    found = {}
    for precision in ("fp32", "bf16"):
        method = build_method("dml", f"resnet{options.depth}", options.peers, 0)
        records = epochs(method, batches(split, options.batch), precision)
        found[f"ours {precision}"] = timed(partial(next, records), options.clock)
    return found


if __name__ == "__main__":
    main()
