"""Whole epochs on a GPU: FFL on CIFAR-sized images, and steps on ImageNet-sized ones.

    python benchmarks/gpu.py --workers 8 --ways fp32 bf16 "bf16, cuda_graphs"
    python benchmarks/gpu.py --ways bf16 "bf16, compile" "bf16, compile, cuda_graphs"
    python benchmarks/gpu.py --small 0 --large --ways bf16 "bf16, free"

Each of these lines takes less than nine minutes. Our loop trains as `codistill train` does: with
deterministic kernels, and with an evaluation of `--tests` images after each epoch. "free" leaves
both settings to PyTorch: any kernel, the fastest found by cuDNN. The plain loop of `plain.py` takes
turns with ours on the same device, and evaluates nothing.

The floor of an epoch is the time that the device would need if it were never idle, by its
published peaks, or by `--tflops` and `--terabytes`. FLOPs count the forward and backward pass
(three times the forward). Bytes count the tensors that the forward pass keeps, written once and
read twice. The large case is DML of ResNet-18 and ResNet-34 with made-up images on the device; its
fraction of the peak is FLOPs per second over the device's.
"""

import argparse
import os
import statistics
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial

import torch

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once, at the first product

from codistill import Batch, Method, Peers, build_network
from codistill.analysis.cost.summary import summarise_method
from codistill.data import EvalBatches, Normalisation
from codistill.methods import DML
from codistill.training.device import deterministic
from figures import Figure, arguments, report
from interleave import Contender, interleave, ratio, timed
from ours import CLASSES, PLAIN_SGD, batches, build_method, epochs, random_split
from plain import PlainFFL, pil_batches

WAYS = {
    "fp32": {"precision": "fp32"},
    "bf16": {"precision": "bf16"},
    "bf16, free": {"precision": "bf16", "free": True},
    "bf16, cuda_graphs": {"precision": "bf16", "cuda_graphs": True},
    "bf16, compile": {"precision": "bf16", "compile": True},
    "bf16, compile, cuda_graphs": {"precision": "bf16", "compile": True, "cuda_graphs": True},
}


PEAKS = {
    "H200": (989.0, 4.8),
    "H100 PCIe": (756.0, 2.0),
    "H100 NVL": (835.0, 3.9),
    "H100": (989.0, 3.35),
    "A100-SXM4-80GB": (312.0, 2.04),
}
"""Teraflops in bf16 without sparsity and terabytes a second, as NVIDIA publishes them."""
LARGE = ["torchvision/resnet18", "torchvision/resnet34"]


def main(argv: Sequence[str] | None = None) -> list[Figure]:
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--depth", type=int, default=32, help="of the ResNets for small images")
    parser.add_argument("--images", type=int, default=50_000, help="of an epoch")
    parser.add_argument("--workers", type=int, default=8, help="of the plain loop's DataLoader")
    parser.add_argument("--tests", type=int, default=10_000, help="images of an evaluation")
    parser.add_argument("--small", type=int, default=1, help="0 leaves the small images out")
    parser.add_argument("--large", nargs="*", help=f"networks (default where given: {LARGE})")
    parser.add_argument("--large_batch", type=int, default=256)
    parser.add_argument("--large_size", type=int, default=224)
    parser.add_argument("--large_steps", type=int, default=20, help="in a round")
    parser.add_argument("--tflops", type=float, help="the device's, in bf16 (default: published)")
    parser.add_argument("--terabytes", type=float, help="a second, of its memory (the same)")
    return report(parser, measure, argv)


def measure(options: argparse.Namespace) -> list[Figure]:
    name = "cpu"
    if torch.device(options.device).type == "cuda":
        name = torch.cuda.get_device_name(options.device)
    print(name)
    tflops, terabytes = peak(name, options.tflops, options.terabytes)
    options.tflops, options.terabytes = tflops, terabytes
    figures = small_figures(options) if options.small else []
    if options.large is not None:
        options.large = options.large or LARGE
        figures += large_figures(options)
    return figures


def peak(name: str, tflops: float | None, terabytes: float | None) -> tuple[float, float]:
    """What is given, or else what is published of a device of that name."""
    known = next((values for part, values in PEAKS.items() if part in name), None)
    if known is None and None in (tflops, terabytes):
        raise SystemExit(f"no peak of {name!r} is known: give --tflops and --terabytes")
    published = known or (0.0, 0.0)
    return tflops or published[0], terabytes or published[1]


def small_figures(options: argparse.Namespace) -> list[Figure]:
    small = interleave(small_contenders(options), options.rounds, warm_up=1)
    figures = [seconds(f"an epoch, {name}", values) for name, values in small.items()]
    figures += [floor(options)]
    figures += [
        ratio(f"{name} against plain", small["plain"], values, target=">= 5")
        for name, values in small.items()
        if name != "plain"
    ]
    return figures


def as_the_command(contender: Contender, way: dict[str, object], device: str) -> Contender:
    """Rounds with the settings of PyTorch that `codistill train` has, or with its own."""

    def timed_round() -> float:
        with free() if way.get("free") else deterministic(torch.device(device)):
            return contender()

    return timed_round


def free() -> AbstractContextManager[None]:
    """PyTorch's fastest: cuDNN tries its kernels."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=True)  # type: ignore[no-any-return]


def small_contenders(options: argparse.Namespace) -> dict[str, Contender]:
    """FFL's loops; a round is an epoch."""
    split = random_split(options.images)
    plain = PlainFFL(options.depth, CLASSES, 2, PLAIN_SGD, device=options.device)
    images = pil_batches(split.images, split.labels, 128, options.workers)
    found = {"plain": timed(partial(plain.train_epoch, images), options.clock)}
    there = split.to(torch.device(options.device))
    test = random_split(options.tests).to(torch.device(options.device))
    seen = EvalBatches(test, 1024, Normalisation.of(test))
    for name in options.ways:
        way = dict(WAYS[name])
        way.pop("free", None)
        method = build_ffl(options.depth, way.pop("compile", False)).to(options.device)
        records = epochs(method, batches(there, 128), evaluate_on={"test": seen}, **way)
        rounds = timed(partial(next, records), options.clock)
        found[name] = as_the_command(rounds, WAYS[name], options.device)
    return found


def build_ffl(depth: int, compiled: bool) -> Method:
    method = build_method("ffl", f"resnet{depth}", 2, 2, ramp_up=0)
    if compiled:
        method.peers.compile_stages()
    return method


def floor(options: argparse.Namespace) -> Figure:
    """Seconds of an epoch at the device's peak: the longer of arithmetic and memory traffic."""
    summary = summarise_method(build_ffl(options.depth, False), (32, 32), 128, "bf16")
    arithmetic = 3 * summary.flops * options.images / (options.tflops * 1e12)
    memory = 3 * summary.memory.activations * options.images / 128 / (options.terabytes * 1e12)
    return Figure("an epoch, floor of the device", max(arithmetic, memory), unit="s")


def large_figures(options: argparse.Namespace) -> list[Figure]:
    """Rates of DML on large images, and their fraction of the peak."""
    flops = 0
    found: dict[str, Contender] = {}
    for name in options.ways:
        way = dict(WAYS[name])
        way.pop("free", None)
        torch.manual_seed(0)
        peers = Peers([build_network(network, CLASSES) for network in options.large])
        method = DML(peers).to(memory_format=torch.channels_last)
        size = options.large_size
        flops = flops or 3 * summarise_method(method, (size, size), 2).flops
        if way.pop("compile", False):
            method.peers.compile_stages()
        records = epochs(method.to(options.device), LargeBatches(options), **way)
        rounds = timed(partial(next, records), options.clock)
        found[name] = as_the_command(rounds, WAYS[name], options.device)
    images = options.large_steps * options.large_batch
    figures = []
    for name, values in interleave(found, options.rounds, warm_up=1).items():
        rate = images / statistics.median(values)
        figures.append(Figure(f"large, {name}", rate, unit="images/s"))
        peak = rate * flops / (options.tflops * 1e12)
        figures.append(Figure(f"large, {name}, of the peak", 100 * peak, unit="%"))
    return figures


class LargeBatches:
    """The same random images on the device in every step, so reading them is not measured."""

    def __init__(self, options: argparse.Namespace):
        n, size, device = options.large_batch, options.large_size, options.device
        images = torch.randn(n, 3, size, size, device=device)
        self.batch = Batch(
            [images.to(memory_format=torch.channels_last)],
            torch.randint(CLASSES, (n,), device=device),
        )
        self.steps = options.large_steps

    def __iter__(self) -> Iterator[Batch]:
        return iter([self.batch] * self.steps)


def seconds(name: str, values: Sequence[float]) -> Figure:
    return Figure(name, statistics.median(values), best=min(values), unit="s", better="lower")


if __name__ == "__main__":
    main()
