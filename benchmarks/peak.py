"""Trains in this process and prints its peak memory in MiB: after the imports, and at the end.

    python peak.py LOOP NETWORK PEERS SHARED BATCH PRECISION THREADS IMAGES

LOOP is a method's name, or "plain" for `plain.py`. `cost.py` starts this file. Linux only.
"""

import sys
from itertools import islice
from pathlib import Path

import torch

from ours import PLAIN_SGD, batches, build_method, epochs, random_split

STEPS = 4


def main(argv: list[str]) -> None:
    loop, network, precision = argv[0], argv[1], argv[5]
    peers, shared, batch, threads, images = (int(argv[i]) for i in (2, 3, 4, 6, 7))
    torch.set_num_threads(threads)
    if loop == "plain":  # our loop does not need torchvision
        from plain import PlainFFL, pil_batches
    start = peak()
    split = random_split(images)
    if loop == "plain":
        plain = PlainFFL(int(network.removeprefix("resnet")), 100, peers, PLAIN_SGD)
        train = iter(pil_batches(split.images, split.labels, batch))
        for _ in range(STEPS):
            plain.step(*next(train))
    else:
        method = build_method(loop, network, peers, shared)
        train = batches(split, batch)
        next(epochs(method, islice(train, STEPS), precision))
    print(start, peak())


def peak() -> float:
    """The peak memory of this process, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (kib,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(kib) / 1024


if __name__ == "__main__":
    main(sys.argv[1:])
