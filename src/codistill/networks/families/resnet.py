"""ResNet for 32x32 images: 6n+2 layers in three stages of 16, 32 and 64 channels.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition. CVPR 2016. arXiv:1512.03385,
section 4.2. The variant is that of FFL's authors' code: basic blocks at every depth, and a 1x1
convolution with batch normalisation ("option B") where a block changes its size. Option A, padding
with zeros, has about 2,500 weights fewer.
"""

from torch import Tensor, nn

from codistill.errors import InputError
from codistill.networks.families.initialise import initialise_convolutions
from codistill.networks.network import Network


def resnet(depth: int, num_classes: int) -> Network:
    """A CIFAR ResNet of `depth` layers: 8, 14, 20, 32, 44, 56, 110, ..."""
    if depth < 8 or (depth - 2) % 6 != 0:
        raise InputError(f"a CIFAR ResNet has 6n+2 layers (8, 14, 20, 32, ...), not {depth}")
    n = (depth - 2) // 6
    stem = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
    network = Network(
        [
            nn.Sequential(*stem, *_blocks(16, 16, n, stride=1)),
            nn.Sequential(*_blocks(16, 32, n, stride=2)),
            nn.Sequential(*_blocks(32, 64, n, stride=2)),
        ],
        channels=(16, 32, 64),
        reductions=(1, 2, 4),
        num_classes=num_classes,
    )
    initialise_convolutions(network)
    return network


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (B, d_in, H, W) to (B, d_out, H/stride, W/stride)."""

    def __init__(self, d_in: int, d_out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(d_in, d_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(d_out)
        self.conv2 = nn.Conv2d(d_out, d_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(d_out)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Sequential()
        if stride != 1 or d_in != d_out:
            conv = nn.Conv2d(d_in, d_out, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(d_out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.shortcut(x)
        return self.relu(y)


def _blocks(d_in: int, d_out: int, n: int, stride: int) -> list[nn.Module]:
    first = BasicBlock(d_in, d_out, stride)
    return [first, *(BasicBlock(d_out, d_out, stride=1) for _ in range(n - 1))]
