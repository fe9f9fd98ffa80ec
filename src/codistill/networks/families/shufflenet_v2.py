"""ShuffleNetV2 for 32x32 images: units that split, convolve and shuffle channels, in four stages.

Ma, Zhang, Zheng, Sun: ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design.
ECCV 2018. arXiv:1807.11164, table 5. For small images the first convolution keeps the size and the
pooling after it is left out, as is usual on CIFAR; the other three strides are the paper's.
"""

import torch
from torch import Tensor, nn

from codistill.networks.families.initialise import initialise_convolutions
from codistill.networks.network import Network


def shufflenet_v2(num_classes: int) -> Network:
    """ShuffleNetV2 of width 1."""
    stem = [nn.Conv2d(3, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(inplace=True)]
    network = Network(
        [
            nn.Sequential(*stem),
            nn.Sequential(*_units(24, 116, 4)),
            nn.Sequential(*_units(116, 232, 8)),
            nn.Sequential(*_units(232, 464, 4), *_pointwise(464, 1024)),
        ],
        channels=(24, 116, 232, 1024),
        reductions=(1, 2, 4, 8),
        num_classes=num_classes,
    )
    initialise_convolutions(network)
    return network


class ShuffleUnit(nn.Module):
    """Half of the channels go through three convolutions; then the halves are shuffled.

    With stride 2 all channels go through both branches, and the left one convolves too.
    """

    def __init__(self, d_in: int, d_out: int, stride: int):
        super().__init__()
        d = d_out // 2
        self.splits = stride == 1
        left = [] if self.splits else [*_depthwise(d_in, stride), *_pointwise(d_in, d)]
        self.left = nn.Sequential(*left)
        self.right = nn.Sequential(
            *_pointwise(d if self.splits else d_in, d), *_depthwise(d, stride), *_pointwise(d, d)
        )

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1) if self.splits else (x, x)
        y = torch.stack([self.left(left), self.right(right)], dim=2)  # (B, d, 2, H, W)
        return y.flatten(1, 2)


def _units(d_in: int, d_out: int, n: int) -> list[nn.Module]:
    first = ShuffleUnit(d_in, d_out, stride=2)
    return [first, *(ShuffleUnit(d_out, d_out, stride=1) for _ in range(n - 1))]


def _pointwise(d_in: int, d_out: int) -> list[nn.Module]:
    conv = nn.Conv2d(d_in, d_out, 1, bias=False)
    return [conv, nn.BatchNorm2d(d_out), nn.ReLU(inplace=True)]


def _depthwise(d: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(d, d, 3, stride, padding=1, groups=d, bias=False)
    return [conv, nn.BatchNorm2d(d)]
