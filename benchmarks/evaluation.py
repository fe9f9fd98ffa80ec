"""Evaluation of a network: ours against an ordinary evaluation loop.

    python benchmarks/evaluation.py --threads 1

Both iterate over normalised batches in memory and count correct predictions. "plain" is a ResNet in
PyTorch's own layout, in eval mode under `torch.no_grad`, with accuracies read in every step. Ours
is `codistill.evaluate` on one peer. The benchmark also measures by how much bf16 shifts the logits,
with batch normalisation folded as in `codistill.evaluate`.
"""

import argparse
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from codistill import Batch, Method, evaluate
from codistill.training.folding import folded
from figures import Figure, arguments, report
from interleave import interleave, rates, ratio, timed
from ours import CLASSES, batches, build_method, epochs, random_split
from plain import AverageMeter, ResNet, accuracy


def main(argv: Sequence[str] | None = None) -> list[Figure]:
    parser = arguments(__doc__, rounds=10)
    parser.add_argument("--depth", type=int, default=32, help="of the ResNet")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=8, help="in a round")
    return report(parser, measure, argv)


def measure(options: argparse.Namespace) -> list[Figure]:
    method = build_method("independent", f"resnet{options.depth}", 1, 0)
    next(epochs(method, batches(random_split(64), 32), "fp32"))  # statistics that are not 0 and 1
    network = ResNet(options.depth, CLASSES)
    images = torch.randn(options.steps, options.batch, 3, 32, 32)
    labels = torch.randint(CLASSES, (options.steps, options.batch))
    theirs = list(zip(images, labels, strict=True))
    ours = [Batch([x.to(memory_format=torch.channels_last)], y) for x, y in theirs]
    passes = {
        "plain": partial(plain_evaluation, network, theirs),
        "ours fp32": partial(evaluate, method, ours),
        "ours bf16": partial(evaluate, method, ours, precision="bf16"),
    }
    contenders = {name: timed(work, options.clock) for name, work in passes.items()}
    seconds = interleave(contenders, options.rounds, warm_up=1)
    against_plain = partial(ratio, slow=seconds["plain"], kept=0.1)
    return [
        *rates(seconds, options.steps * options.batch),
        against_plain("evaluation fp32 against plain", fast=seconds["ours fp32"], target=">= 2.8"),
        against_plain("evaluation bf16 against plain", fast=seconds["ours bf16"], target=">= 4.5"),
        Figure("shift of a logit in bf16", shift(method, ours[0]), unit="of the largest logit"),
    ]


@torch.no_grad()
def plain_evaluation(network: ResNet, batches: list[tuple[Tensor, Tensor]]) -> float:
    """The top-1 of an ordinary evaluation loop, in %."""
    network.eval()
    losses, top1, top5 = AverageMeter(), AverageMeter(), AverageMeter()
    for inputs, targets in batches:
        outputs = network(inputs)
        loss = torch.nn.functional.cross_entropy(outputs, targets)
        right1, right5 = accuracy(outputs, targets)
        losses.update(loss.item(), len(targets))
        top1.update(right1.item(), len(targets))
        top5.update(right5.item(), len(targets))
    return top1.sum / top1.count


@torch.inference_mode()
def shift(method: Method, batch: Batch) -> float:
    """The largest difference that bf16 makes to a logit in evaluation, over the largest logit."""
    method.eval()
    fast = folded(method, batch.views, images=1_000_000)  # as an evaluation of many does
    exact = fast(batch.views).logits
    with torch.autocast("cpu", torch.bfloat16):
        return ((fast(batch.views).logits - exact).abs().max() / exact.abs().max()).item()


if __name__ == "__main__":
    main()
