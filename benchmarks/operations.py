"""Operations that PyTorch dispatches in one training step of FFL: plain and ours.

    python benchmarks/operations.py

On a GPU each operation costs the CPU a few microseconds, for which a small network waits. "kernels"
counts the operations that compute something, without views and empty memory. PyTorch's SGD goes
weight by weight on a CPU and takes lists ("foreach") on a GPU; the plain step is counted both ways.
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
from ours import CLASSES, FULL_WEIGHT, PLAIN_SGD, SGD, build_method
from plain import PlainFFL

BATCH = 8  # the number of operations does not depend on it


class Counting(TorchDispatchMode):
    """Counts the operations dispatched while it is on: "all", and the "kernels" among them."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts["all"] += 1
        name = str(func)
        if name.startswith("aten.") and not func.is_view and not name.startswith("aten.empty"):
            self.counts["kernels"] += 1
        return func(*args, **(kwargs or {}))


def main(argv: Sequence[str] | None = None) -> list[Figure]:
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--depth", type=int, default=32, help="of the ResNets")
    parser.add_argument("--peers", type=int, default=2)
    return report(parser, measure, argv)


def measure(options: argparse.Namespace) -> list[Figure]:
    steps = {
        "plain": plain_step(options, PLAIN_SGD),
        "plain with foreach": plain_step(options, functools.partial(PLAIN_SGD, foreach=True)),
        "ours fp32": our_step(options, bf16=False),
        "ours bf16": our_step(options, bf16=True),
    }
    figures = []
    for name, step in steps.items():
        kept = 0.01 if "ours" in name else 0.0
        for kind, count in operations(step).items():
            figure = Figure(f"{name}, {kind}", count, unit="a step", kept=kept, better="lower")
            figures.append(figure)
    return figures


def operations(step: Callable[[], Any]) -> Counter[str]:
    """Counts the operations of a step, after a first step has made its buffers."""
    step()
    with Counting() as counting:
        step()
    return counting.counts


def plain_step(options: argparse.Namespace, sgd: Callable[..., Any]) -> Callable[[], Any]:
    plain = PlainFFL(options.depth, CLASSES, options.peers, sgd)
    return functools.partial(plain.step, torch.randn(BATCH, 3, 32, 32), torch.arange(BATCH))


def our_step(options: argparse.Namespace, bf16: bool) -> Callable[[], Any]:
    method = build_method("ffl", f"resnet{options.depth}", options.peers, 2)
    optimizers = method.optimizers(SGD)
    images = torch.randn(BATCH, 3, 32, 32).to(memory_format=torch.channels_last)
    batch = Batch([images], torch.arange(BATCH))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            method.training_step(batch, optimizers, FULL_WEIGHT)

    return step


if __name__ == "__main__":
    main()
