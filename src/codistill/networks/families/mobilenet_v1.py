"""MobileNet for 32x32 images: depthwise separable convolutions in five stages.

Howard, Zhu, Chen, Kalenichenko, Wang, Weyand, Andreetto, Adam: MobileNets: Efficient Convolutional
Neural Networks for Mobile Vision Applications. 2017. arXiv:1704.04861, table 1. For small images
the first convolution keeps the size, as is usual on CIFAR; the other four strides are the paper's.
"""

from torch import nn

from codistill.networks.families.initialise import initialise_convolutions
from codistill.networks.network import Network


def mobilenet_v1(num_classes: int) -> Network:
    """MobileNet of width 1."""
    network = Network(
        [
            nn.Sequential(_conv(3, 32, 3), _separable(32, 64, stride=1)),
            nn.Sequential(*_separables(64, 128, 2)),
            nn.Sequential(*_separables(128, 256, 2)),
            nn.Sequential(*_separables(256, 512, 6)),
            nn.Sequential(*_separables(512, 1024, 2)),
        ],
        channels=(64, 128, 256, 512, 1024),
        reductions=(1, 2, 4, 8, 16),
        num_classes=num_classes,
    )
    initialise_convolutions(network)
    return network


def _separables(d_in: int, d_out: int, n: int) -> list[nn.Module]:
    first = _separable(d_in, d_out, stride=2)
    return [first, *(_separable(d_out, d_out, stride=1) for _ in range(n - 1))]


def _separable(d_in: int, d_out: int, stride: int) -> nn.Module:
    return nn.Sequential(_conv(d_in, d_in, 3, stride, groups=d_in), _conv(d_in, d_out, 1))


def _conv(d_in: int, d_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Module:
    conv = nn.Conv2d(d_in, d_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(d_out), nn.ReLU(inplace=True))
