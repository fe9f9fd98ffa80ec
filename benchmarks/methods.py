"""Images per second of every method's training step, interleaved: one step of each in turn.

    python benchmarks/methods.py [--network resnet8] [--peers 3] [--precision bf16] [--rounds 15]

Branches share two of three stages; codistillation's peers, which cannot, share none. Random images
of 32x32, 100 classes, batches of 128, SGD; without data loading. What counts is the fastest of the
rounds, which a busy neighbour disturbs least; the ratio is that to Independent's branches.
"""

import argparse
import functools
import time

import torch

from codistill import Batch, Method, Peers, build_network
from codistill.methods import METHODS, method_class

BATCH, CLASSES, WARM_UP = 128, 100, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet8")
    parser.add_argument("--peers", type=int, default=3)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.peers < 3:
        parser.error("OKDDip and OKDMDE need 3 peers or more")
    torch.set_num_threads(options.threads)

    makes = {name: functools.partial(build, name, options) for name in METHODS}
    makes["independent, shared=0"] = functools.partial(build, "independent", options, shared=0)
    steps = {name: step_of(make(), options.precision) for name, make in makes.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(WARM_UP + options.rounds):
        for name, step in steps.items():
            begin = time.perf_counter()
            step()
            if i >= WARM_UP:
                seconds[name].append(time.perf_counter() - begin)

    bar = min(seconds["independent"])
    print(f"{options.peers} x {options.network}, {options.precision}, {options.threads} thread(s)")
    for name, values in seconds.items():
        print(f"{name:<22} {BATCH / min(values):>7,.0f} images/s  x{min(values) / bar:.2f} time")


def build(name: str, options: argparse.Namespace, shared: int | None = None) -> Method:
    torch.manual_seed(0)
    if shared is None:
        shared = 0 if name == "codistillation" else 2
    networks = [build_network(options.network, CLASSES) for _ in range(options.peers)]
    needed = {"teacher": build_network("resnet20", CLASSES)} if name == "kd" else {}
    method = method_class(name)(Peers(networks, shared), **needed)
    return method.to(memory_format=torch.channels_last)


def step_of(method: Method, precision: str):
    sgd = functools.partial(torch.optim.SGD, lr=0.01, momentum=0.9, nesterov=True)
    optimizers = method.optimizers(sgd)
    images = torch.randn(BATCH, 3, 32, 32).to(memory_format=torch.channels_last)
    batch = Batch([images.clone() for _ in range(method.views)], torch.arange(BATCH) % CLASSES)

    method.begin_epoch(10_000, None)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            method.training_step(batch, optimizers, epoch=10_000)  # distillation is on

    return step


if __name__ == "__main__":
    main()
