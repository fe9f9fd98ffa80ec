"""Batch normalisation, addition and ReLU alone, both ways: compiled against PyTorch's operations.

    codistill kernels
    python benchmarks/kernels.py --threads 1

Maps are those of a CIFAR ResNet. A round goes through several of them, so that, as in a network,
none is in the caches when its turn comes.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from codistill.kernels import batch_norm_relu, using_kernels
from codistill.kernels.build import built
from figures import Figure, arguments, report
from interleave import WARM_UP_STEPS, interleave, ratio, timed

SHAPES = ((16, 32), (32, 16), (64, 8))  # channels, side
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main(argv: Sequence[str] | None = None) -> list[Figure]:
    parser = arguments(__doc__, rounds=16)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--maps", type=int, default=6, help="in a round")
    return report(parser, measure, argv)


def measure(options: argparse.Namespace) -> list[Figure]:
    if not built():
        sys.exit("there are no kernels: codistill kernels")
    figures = []
    for precision, dtype in TYPES.items():
        for channels, side in SHAPES:
            for added in (False, True):
                shape = (options.batch, channels, side, side)
                work = partial(round_of, *tensors(options.maps, shape, dtype, added))
                contenders = {
                    kernels: timed(partial(work, kernels), options.clock)
                    for kernels in (False, True)
                }
                seconds = interleave(contenders, options.rounds, WARM_UP_STEPS)
                name = f"{precision} {channels}x{side}x{side}{' with residual' if added else ''}"
                figures.append(ratio(name, seconds[False], seconds[True]))
    return figures


def tensors(
    maps: int, shape: tuple[int, ...], dtype: torch.dtype, added: bool
) -> tuple[nn.BatchNorm2d, list[Tensor], list[Tensor | None], list[Tensor]]:
    """A batch normalisation, inputs, residuals and gradients."""

    def draw() -> Tensor:
        return torch.randn(shape).to(dtype).to(memory_format=torch.channels_last)

    inputs = [draw().requires_grad_() for _ in range(maps)]
    residuals = [draw().requires_grad_() if added else None for _ in range(maps)]
    return nn.BatchNorm2d(shape[1]), inputs, residuals, [draw() for _ in range(maps)]


def round_of(
    bn: nn.BatchNorm2d,
    inputs: Sequence[Tensor],
    residuals: Sequence[Tensor | None],
    gradients: Sequence[Tensor],
    kernels: bool,
) -> None:
    """All forward, then all backward."""
    relu = nn.ReLU(inplace=True)
    with using_kernels(kernels):
        outputs = [batch_norm_relu(bn, relu, *pair) for pair in zip(inputs, residuals, strict=True)]
    for y, gradient in zip(outputs, gradients, strict=True):
        y.backward(gradient)
    for x in (*inputs, *residuals):
        if x is not None:
            x.grad = None


if __name__ == "__main__":
    main()
