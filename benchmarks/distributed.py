"""Several processes that train together against one: time, the share of talking, bytes, a model.

    python benchmarks/distributed.py --network resnet32 --batch 128 --processes 2
    python benchmarks/distributed.py --device cuda --processes 8 --steps 50       # a GPU each

One process trains FFL on batches of B images; then W processes train on the same batches, each on
its piece, with as many threads each. Talking is the time within the sums over all processes, in the
process that talks longest; waiting for a slower one is part of it. The bytes are those that a ring
sends from each process: 2 (W - 1) / W of what is summed. The last figures are calculated, not
measured: two ResNet-50, 128 images for each of 8 GPUs, 85 ms a step, by networks of three speeds.
"""

import argparse
import os
import socket
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import multiprocessing

from codistill import TrainingState, distributed
from codistill.training.fit import train_epoch
from figures import Figure, arguments, report
from interleave import WARM_UP_STEPS
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
    one, several = started(1, options)[0], started(W, options)
    step = [max(of) for of in zip(*(found["seconds"] for found in several), strict=True)]
    talk = max(statistics.median(found["talking"]) for found in several)
    median, alone = statistics.median(step), statistics.median(one["seconds"])
    sent = 2 * (W - 1) / W * several[0]["bytes"]
    return [
        Figure("1 process", options.batch / alone, unit="images/s"),
        Figure(f"{W} processes", options.batch / median, unit="images/s"),
        Figure(f"{W} processes against 1", alone / median, best=min(one["seconds"]) / min(step)),
        Figure("talking, of a step", 100 * talk / median, unit="%", better="lower"),
        Figure("sent by a process in a step", sent / 1e6, unit="MB", better="lower"),
        Figure("sums in a step", several[0]["calls"], unit="messages", better="lower"),
        *(
            Figure(f"calculated: {name}", 100 * modelled(8, speed), unit="% of a step")
            for name, speed in _SPEEDS.items()
        ),
    ]


def modelled(processes: int, speed: float) -> float:
    """The share of a step that sums take after the backward pass, without any overlap."""
    return 2 * (processes - 1) / processes * _GRADIENTS / speed / _STEP


def started(processes: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """What each of so many processes measures."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    arguments = (processes, port, options, results)
    joint = multiprocessing.spawn(_process, arguments, nprocs=processes, join=False)
    found = [results.get() for _ in range(processes)]
    joint.join()
    return found


def _process(rank: int, processes: int, port: int, options: argparse.Namespace, out: Any) -> None:
    names = "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"
    os.environ |= dict(zip(names, map(str, (rank, processes, rank, processes)), strict=True))
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(options.threads)
    with distributed.joined():
        out.put(_measured(options))


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a step and of talking in it, by round; bytes and messages of a step."""
    from codistill.training.device import choose_device

    device = choose_device(options.device)
    split = random_split(options.steps * options.batch).to(device)
    state = TrainingState(
        build_method(options.method, options.network, options.peers, 0).to(device), SGD
    )
    talk = {"seconds": 0.0, "bytes": 0, "calls": 0}
    add_up = distributed._add_up

    def watched(tensors: Sequence[torch.Tensor]) -> None:
        begin = time.perf_counter()
        add_up(tensors)
        talk["seconds"] += time.perf_counter() - begin
        talk["bytes"] += sum(x.numel() * x.element_size() for x in tensors)
        talk["calls"] += 1

    distributed._add_up = watched
    train = batches(split, options.batch, state.method.views)
    seconds, talking = [], []
    for epoch in range(-(-WARM_UP_STEPS // options.steps) + options.rounds):
        train.start_at(epoch)
        talk |= {"seconds": 0.0, "bytes": 0, "calls": 0}
        begin = time.perf_counter()
        train_epoch(state, train)
        seconds.append((time.perf_counter() - begin) / options.steps)
        talking.append(talk["seconds"] / options.steps)
        state.end_epoch({})
    counted = slice(-options.rounds, None)
    return {
        "seconds": seconds[counted],
        "talking": talking[counted],
        "bytes": talk["bytes"] / options.steps,
        "calls": talk["calls"] / options.steps,
    }


if __name__ == "__main__":
    main()
