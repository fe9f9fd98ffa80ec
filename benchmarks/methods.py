"""Time of every method's training step relative to that of Independent's branches.

    python benchmarks/methods.py [--network resnet8] [--peers 3] [--precision bf16] [--rounds 15]

Branches share two of three stages; codistillation's peers cannot share and are separate networks.
The images are random, 32x32, with 100 classes, in batches of 128; the optimizer is SGD. Data
loading is not measured.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import torch

from codistill import Batch, Method, build_network
from codistill.methods import METHODS
from figures import Figure, arguments, report
from interleave import WARM_UP_STEPS, interleave, rates, ratio, timed
from ours import CLASSES, FULL_WEIGHT, SGD, build_method


def main(argv: Sequence[str] | None = None) -> list[Figure]:
    parser = arguments(__doc__, rounds=15)
    parser.add_argument("--network", default="resnet8")
    parser.add_argument("--peers", type=int, default=3)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    return report(parser, measure, argv)


def measure(options: argparse.Namespace) -> list[Figure]:
    methods = {name: build(name, options) for name in METHODS}
    methods["independent, shared=0"] = build("independent", options, shared=0)
    steps = {name: step_of(method, options) for name, method in methods.items()}
    contenders = {name: timed(step, options.clock) for name, step in steps.items()}
    seconds = interleave(contenders, options.rounds, WARM_UP_STEPS)
    bar = seconds["independent"]
    times = [ratio(f"time of {name}", values, bar) for name, values in seconds.items()]
    return rates(seconds, options.batch) + times


def build(name: str, options: argparse.Namespace, shared: int = 2) -> Method:
    if name == "codistillation":
        shared = 0
    needed = {"teacher": build_network("resnet20", CLASSES)} if name in ("kd", "shake") else {}
    return build_method(name, options.network, options.peers, shared, **needed)


def step_of(method: Method, options: argparse.Namespace) -> Callable[[], Any]:
    optimizers = method.optimizers(SGD)
    images = torch.randn(options.batch, 3, 32, 32).to(memory_format=torch.channels_last)
    labels = torch.arange(options.batch) % CLASSES
    batch = Batch([images.clone() for _ in range(method.views)], labels)
    method.begin_epoch(FULL_WEIGHT, None)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bf16"):
            method.training_step(batch, optimizers, FULL_WEIGHT)

    return step


if __name__ == "__main__":
    main()
