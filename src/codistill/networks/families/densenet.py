"""DenseNet for 32x32 images: three dense blocks, whose layers see all maps before them.

Huang, Liu, van der Maaten, Weinberger: Densely Connected Convolutional Networks. CVPR 2017.
arXiv:1608.06993, section 3. DenseNet-40-12 is depth 40, growth rate 12, and has neither bottlenecks
nor compression. DenseNet-BC has both; DenseNet-BC-40-12 is what OKDDip's authors' code calls
DenseNet-40-12. Without dropout, as in the paper where images are augmented. A transition belongs to
the stage that it leads to, and the batch normalisation and ReLU after the last block to the last.
"""

import torch
from torch import Tensor, nn

from codistill.errors import InputError
from codistill.networks.families.initialise import initialise_convolutions
from codistill.networks.network import Network


def densenet(depth: int, growth_rate: int, num_classes: int) -> Network:
    """DenseNet-`depth`-`growth_rate`, from 16 channels."""
    if depth < 7 or (depth - 4) % 3 != 0 or growth_rate < 1:
        raise InputError(
            "a DenseNet has 3n+4 layers (7, 10, ..., 40, ...), growth rate >= 1: "
            f"not {depth} layers, growth rate {growth_rate}"
        )
    return _densenet((depth - 4) // 3, 16, growth_rate, False, num_classes)


def densenet_bc(depth: int, growth_rate: int, num_classes: int) -> Network:
    """DenseNet-BC-`depth`-`growth_rate`: bottlenecks, and transitions that halve the channels."""
    if depth < 10 or (depth - 4) % 6 != 0 or growth_rate < 1:
        raise InputError(
            "a DenseNet-BC has 6n+4 layers (10, ..., 40, ..., 100, ...), growth rate >= 1: "
            f"not {depth} layers, growth rate {growth_rate}"
        )
    return _densenet((depth - 4) // 6, 2 * growth_rate, growth_rate, True, num_classes)


def _densenet(n: int, d: int, growth_rate: int, bc: bool, num_classes: int) -> Network:
    d1 = d + n * growth_rate
    d1_out = d1 // 2 if bc else d1
    d2 = d1_out + n * growth_rate
    d2_out = d2 // 2 if bc else d2
    d3 = d2_out + n * growth_rate
    stem = nn.Conv2d(3, d, 3, padding=1, bias=False)
    network = Network(
        [
            nn.Sequential(stem, *_block(d, n, growth_rate, bc)),
            nn.Sequential(*_transition(d1, d1_out), *_block(d1_out, n, growth_rate, bc)),
            nn.Sequential(
                *_transition(d2, d2_out),
                *_block(d2_out, n, growth_rate, bc),
                nn.BatchNorm2d(d3),
                nn.ReLU(inplace=True),
            ),
        ],
        channels=(d1, d2, d3),
        reductions=(1, 2, 4),
        num_classes=num_classes,
    )
    initialise_convolutions(network)
    return network


class DenseLayer(nn.Module):
    """BN, ReLU, 3x3 convolution to `growth_rate` channels, which are appended to those before.

    With a bottleneck, BN, ReLU and a 1x1 convolution to four times as many channels come first.
    """

    def __init__(self, d_in: int, growth_rate: int, bottleneck: bool):
        super().__init__()
        d = 4 * growth_rate if bottleneck else d_in
        self.layers = nn.Sequential(
            *(_bn_relu_conv(d_in, d, 1) if bottleneck else []), *_bn_relu_conv(d, growth_rate, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.layers(x)], dim=1)


def _block(d_in: int, n: int, growth_rate: int, bottleneck: bool) -> list[nn.Module]:
    return [DenseLayer(d_in + i * growth_rate, growth_rate, bottleneck) for i in range(n)]


def _transition(d_in: int, d_out: int) -> list[nn.Module]:
    return [*_bn_relu_conv(d_in, d_out, 1), nn.AvgPool2d(2)]


def _bn_relu_conv(d_in: int, d_out: int, kernel: int) -> list[nn.Module]:
    conv = nn.Conv2d(d_in, d_out, kernel, padding=kernel // 2, bias=False)
    return [nn.BatchNorm2d(d_in), nn.ReLU(inplace=True), conv]
