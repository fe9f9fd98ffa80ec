"""Operations that PyTorch dispatches in one training step of FFL: plain and ours.

    python benchmarks/operations.py

On a GPU each of them is started by the CPU, which a small network waits for. SGD runs weight by
weight on a CPU and all weights at once on a GPU ("foreach"): counted both ways.
"""

import argparse
import functools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from codistill import Batch
from figures import Figure, arguments, report
from ours import FULL_WEIGHT, SGD, build_method
from plain import PlainFFL

BATCH = 8  # the number of operations does not depend on it


class Counting(TorchDispatchMode):
    """Counts the operations that are dispatched while it is on, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


def main(argv: Sequence[str] | None = None) -> list[Figure]:
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--depth", type=int, default=32, help="of the ResNets")
    parser.add_argument("--peers", type=int, default=2)
    return report(parser, measure, argv)


def measure(options: argparse.Namespace) -> list[Figure]:
    figures = []
    for foreach in (False, True):
        sgd = functools.partial(SGD, foreach=foreach)
        how = "foreach SGD" if foreach else "SGD weight by weight"
        for name, make in (("plain", plain_step), ("ours", our_step)):
            count = operations(make(options, sgd))
            kept = 0.01 if name == "ours" else 0.0
            figures.append(
                Figure(f"{name}, {how}", count, unit="operations", kept=kept, better="lower")
            )
    return figures


def operations(step: Callable[[], Any]) -> int:
    """How many operations a step dispatches, once there is what the first step makes."""
    step()
    with Counting() as counting:
        step()
    return counting.counts.total()


def plain_step(options: argparse.Namespace, sgd: Callable[..., Any]) -> Callable[[], Any]:
    plain = PlainFFL(options.depth, 100, options.peers, sgd)
    return functools.partial(plain.step, torch.randn(BATCH, 3, 32, 32), torch.arange(BATCH))


def our_step(options: argparse.Namespace, sgd: Callable[..., Any]) -> Callable[[], Any]:
    method = build_method("ffl", f"resnet{options.depth}", options.peers, 2)
    images = torch.randn(BATCH, 3, 32, 32).to(memory_format=torch.channels_last)
    batch = Batch([images], torch.arange(BATCH))
    return functools.partial(method.training_step, batch, method.optimizers(sgd), epoch=FULL_WEIGHT)


if __name__ == "__main__":
    main()
