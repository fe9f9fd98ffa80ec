"""Several processes that train together against one: time, the share of talking, bytes, a model.

    python benchmarks/distributed.py --network resnet32 --batch 128 --processes 2
    python benchmarks/distributed.py --device cuda --processes 8 --steps 50       # a GPU each

One process trains FFL on batches of B images; then W processes train on the same batches, each on
its piece, with as many threads each; then, if W is a multiple of the peers, with a peer each, or
with several processes for a peer (--placement peers). Talking is the time that a step waits for
what processes send, in the process that waits longest; waiting for a slower one is part of it.
Gradients of more than 25 MB travel during the backward pass; rounds in which they travel after it
come in between. The bytes are those that a ring sends from each of n processes: 2 (n - 1) / n of
what is summed, (n - 1) / n of what one of them gives to all. Tensors are those of a step at its
peak, as `codistill inspect` estimates them, in the process that has most. The last figures are
calculated, not measured: two ResNet-50, 128 images for each of 8 GPUs, 85 ms a step, by networks of
three speeds.

Overlap needs a network that takes time: on one machine, `tc qdisc add dev lo root tbf rate 1gbit
burst 1mb latency 50ms` makes it as slow as that; `tc qdisc del dev lo root` ends it.
"""

import argparse
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import multiprocessing

from codistill import TrainingState, distributed
from codistill.analysis.cost.memory import estimate_memory
from codistill.methods import gradient_sums
from codistill.methods.gradient_sums import GradientSums
from codistill.training.fit import train_epoch
from figures import Figure, arguments, report
from interleave import WARM_UP_STEPS, ratio
from ours import SGD, batches, build_method, random_split

_STEP = 0.085  # seconds: one ResNet-50 at 3,000 images/s in bf16, which is assumed
_GRADIENTS = 2 * 25_557_032 * 4  # bytes of two ResNet-50 in fp32
_SPEEDS = {"NVLink, 400 GB/s": 400e9, "PCIe, 40 GB/s": 40e9, "100 Gb/s Ethernet": 11.2e9}


def main(argv: Sequence[str] | None = None) -> list[Figure]:
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("--method", default="ffl")
    parser.add_argument("--network", default="resnet32")
    parser.add_argument("--peers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=128, help="of all processes together")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6, help="of a round")
    parser.add_argument("--device", default="cpu")
    return report(parser, measure, argv)


def measure(options: argparse.Namespace) -> list[Figure]:
    W = options.processes
    (one,) = started(1, options, "data")
    alone = one["seconds"]
    figures = [
        Figure("1 process", options.batch / statistics.median(alone), unit="images/s"),
        Figure("tensors of 1 process", one["tensors"] / 1e6, unit="MB", better="lower"),
    ]
    for placement in ("data", "peers") if W % options.peers == 0 else ("data",):
        figures += of_placement(placement, started(W, options, placement), alone, options)
    return [
        *figures,
        *(
            Figure(f"calculated: {name}", 100 * modelled(8, speed), unit="% of a step")
            for name, speed in _SPEEDS.items()
        ),
    ]


def of_placement(
    placement: str, found: list[dict[str, Any]], alone: list[float], options: argparse.Namespace
) -> list[Figure]:
    """The figures of processes that divide the images, or the peers."""
    name = f"{options.processes} processes, {placement}"
    step = [max(of) for of in zip(*(of_one["seconds"] for of_one in found), strict=True)]
    talk = max(statistics.median(of_one["talking"]) for of_one in found)
    median = statistics.median(step)
    most = {key: max(of_one[key] for of_one in found) for key in ("bytes", "calls", "tensors")}
    against = statistics.median(alone) / median
    if found[0]["after"]:
        after = [max(of) for of in zip(*(of_one["after"] for of_one in found), strict=True)]
        overlap = [ratio(f"{name}: against sums after backward", after, step)]
    else:  # one message, which nothing overlaps
        overlap = []
    return [
        Figure(name, options.batch / median, unit="images/s"),
        *overlap,
        Figure(f"{name}: against 1", against, best=min(alone) / min(step)),
        Figure(f"{name}: talking, of a step", 100 * talk / median, unit="%", better="lower"),
        Figure(f"{name}: sent by each in a step", most["bytes"] / 1e6, unit="MB", better="lower"),
        Figure(f"{name}: messages in a step", most["calls"], better="lower"),
        Figure(f"{name}: tensors of each", most["tensors"] / 1e6, unit="MB", better="lower"),
    ]


def modelled(processes: int, speed: float) -> float:
    """The share of a step that sums take, whether or not the backward pass hides them."""
    return 2 * (processes - 1) / processes * _GRADIENTS / speed / _STEP


def started(processes: int, options: argparse.Namespace, placement: str) -> list[dict[str, Any]]:
    """What each of so many processes measures."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    arguments = (processes, port, options, placement, results)
    joint = multiprocessing.spawn(_process, arguments, nprocs=processes, join=False)
    found = [results.get() for _ in range(processes)]
    joint.join()
    return found


def _process(
    rank: int, processes: int, port: int, options: argparse.Namespace, placement: str, out: Any
) -> None:
    names = "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"
    os.environ |= dict(zip(names, map(str, (rank, processes, rank, processes)), strict=True))
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(options.threads)
    with distributed.joined():
        out.put(_measured(options, placement))


class Talk:
    """Counts what this process sends, and the time that it takes."""

    def __init__(self) -> None:
        self.clear()
        for where, name in ((distributed, "exchange"), (GradientSums, "finish")):
            setattr(where, name, self._timed(getattr(where, name)))
        for name, share in (("all_reduce", 2), ("broadcast", 1)):
            setattr(dist, name, self._counted(getattr(dist, name), share))

    def clear(self) -> None:
        self.seconds, self.bytes, self.calls = 0.0, 0.0, 0

    def _timed(self, send: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> None:
            begin = time.perf_counter()
            send(*arguments)
            self.seconds += time.perf_counter() - begin

        return timed

    def _counted(self, send: Callable[..., Any], share: int) -> Callable[..., Any]:
        def counted(x: torch.Tensor, *arguments: Any, **options: Any) -> Any:
            handle = options.get("group", arguments[1] if len(arguments) > 1 else None)
            n = dist.get_world_size(handle)
            self.bytes += share * (n - 1) / n * x.numel() * x.element_size()
            self.calls += 1
            return send(x, *arguments, **options)

        return counted


def _measured(options: argparse.Namespace, placement: str) -> dict[str, Any]:
    """Seconds of a step and of talking in it, by round; bytes and messages of a step; tensors."""
    from codistill.training.device import choose_device

    device = choose_device(options.device)
    split = random_split(options.steps * options.batch).to(device)
    state = TrainingState(
        build_method(options.method, options.network, options.peers, 0).to(device),
        SGD,
        placement=placement,
    )
    images = options.batch // distributed.team().size
    tensors = estimate_memory(state.method.train(), (32, 32), images, "fp32", SGD).tensors
    talk = Talk()
    train = batches(split, options.batch, state.method.views)
    seconds, talking = [], []
    after: list[float] = []  # with sums after the backward pass, one round in turn with each other
    of_weights = sum(w.nbytes for w in state.method.parameters())
    overlapped = distributed.team().size > 1 and of_weights > gradient_sums.MESSAGE
    for epoch in range(-(-WARM_UP_STEPS // options.steps) + options.rounds):
        if overlapped:
            with mock.patch.object(gradient_sums, "MESSAGE", sys.maxsize):
                after.append(_round(state, train, epoch) / options.steps)
        talk.clear()
        seconds.append(_round(state, train, epoch) / options.steps)
        talking.append(talk.seconds / options.steps)
    counted = slice(-options.rounds, None)
    return {
        "seconds": seconds[counted],
        "after": after[counted],
        "talking": talking[counted],
        "bytes": talk.bytes / options.steps,
        "calls": talk.calls / options.steps,
        "tensors": tensors,
    }


def _round(state: TrainingState, train: Any, epoch: int) -> float:
    """The seconds that an epoch takes."""
    train.start_at(epoch)
    begin = time.perf_counter()
    train_epoch(state, train)
    seconds = time.perf_counter() - begin
    state.end_epoch({})
    return seconds


if __name__ == "__main__":
    main()
