"""MobileNetV2 for 32x32 images: inverted residuals and linear bottlenecks in four stages.

Sandler, Howard, Zhu, Zhmoginov, Chen: MobileNetV2: Inverted Residuals and Linear Bottlenecks.
CVPR 2018. arXiv:1801.04381, table 2. For small images the first convolution and the blocks of 24
channels keep the size, as is usual on CIFAR; the other three strides are the paper's.
"""

from torch import Tensor, nn

from codistill.networks.families.initialise import initialise_convolutions
from codistill.networks.network import Network


def mobilenet_v2(num_classes: int) -> Network:
    """MobileNetV2 of width 1."""
    network = Network(
        [
            nn.Sequential(
                _conv(3, 32, 3), InvertedResidual(32, 16, 1, expansion=1), *_blocks(16, 24, 2, 1)
            ),
            nn.Sequential(*_blocks(24, 32, 3, stride=2)),
            nn.Sequential(*_blocks(32, 64, 4, stride=2), *_blocks(64, 96, 3, stride=1)),
            nn.Sequential(
                *_blocks(96, 160, 3, stride=2), *_blocks(160, 320, 1, 1), _conv(320, 1280, 1)
            ),
        ],
        channels=(24, 32, 96, 1280),
        reductions=(1, 2, 4, 8),
        num_classes=num_classes,
    )
    initialise_convolutions(network)
    return network


class InvertedResidual(nn.Module):
    """1x1 convolution to `expansion` times the channels, 3x3 depthwise, 1x1 without activation.

    The input is added where it has the shape of the output.
    """

    def __init__(self, d_in: int, d_out: int, stride: int, expansion: int):
        super().__init__()
        d = expansion * d_in
        self.layers = nn.Sequential(
            *([_conv(d_in, d, 1)] if expansion != 1 else []),
            _conv(d, d, 3, stride, groups=d),
            nn.Conv2d(d, d_out, 1, bias=False),
            nn.BatchNorm2d(d_out),
        )
        self.residual = stride == 1 and d_in == d_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


def _blocks(d_in: int, d_out: int, n: int, stride: int) -> list[nn.Module]:
    first = InvertedResidual(d_in, d_out, stride, expansion=6)
    return [first, *(InvertedResidual(d_out, d_out, 1, expansion=6) for _ in range(n - 1))]


def _conv(d_in: int, d_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Module:
    conv = nn.Conv2d(d_in, d_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(d_out), nn.ReLU6(inplace=True))
