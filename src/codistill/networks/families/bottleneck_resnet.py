"""ResNet of bottlenecks for 32x32 images: 9n+2 layers, three stages of 64, 128 and 256 channels.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition. CVPR 2016. arXiv:1512.03385.
ResNet-164 is from their "Identity Mappings in Deep Residual Networks", ECCV 2016, arXiv:1603.05027,
here with the original unit, which activates after the addition. The variant is that of OKDDip's
authors' code: the 3x3 convolution has the stride, and a 1x1 convolution with batch normalisation
("option B") is the shortcut where a block changes its size.

Online distillation means two more networks of this family by other networks' names: "ResNet-110" is
often the bottleneck one, with a third less weights than that of He et al., and "WRN-20-8" is no WRN
(6n+4 layers), but 9*2+2 layers, and 8 times as many channels inside the blocks.
"""

from torch import Tensor, nn

from codistill.errors import InputError
from codistill.networks.families.initialise import initialise_convolutions
from codistill.networks.network import Network


def bottleneck_resnet(depth: int, width: int, num_classes: int) -> Network:
    """A CIFAR ResNet of bottlenecks, `depth` layers, inside the blocks `width` times as wide."""
    if depth < 11 or (depth - 2) % 9 != 0 or width < 1:
        raise InputError(
            "a CIFAR ResNet of bottlenecks has 9n+2 layers (11, 20, 29, ...), width >= 1: "
            f"not {depth} layers, width {width}"
        )
    n = (depth - 2) // 9
    stem = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
    network = Network(
        [
            nn.Sequential(*stem, *_blocks(16, 16 * width, 64, n, stride=1)),
            nn.Sequential(*_blocks(64, 32 * width, 128, n, stride=2)),
            nn.Sequential(*_blocks(128, 64 * width, 256, n, stride=2)),
        ],
        channels=(64, 128, 256),
        reductions=(1, 2, 4),
        num_classes=num_classes,
    )
    initialise_convolutions(network)
    return network


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, `d` channels between them, and a shortcut."""

    def __init__(self, d_in: int, d: int, d_out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(d_in, d, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(d)
        self.conv2 = nn.Conv2d(d, d, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(d)
        self.conv3 = nn.Conv2d(d, d_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(d_out)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Sequential()
        if stride != 1 or d_in != d_out:
            conv = nn.Conv2d(d_in, d_out, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(d_out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += self.shortcut(x)
        return self.relu(y)


def _blocks(d_in: int, d: int, d_out: int, n: int, stride: int) -> list[nn.Module]:
    first = Bottleneck(d_in, d, d_out, stride)
    return [first, *(Bottleneck(d_out, d, d_out, stride=1) for _ in range(n - 1))]
