"""Wide ResNet for 32x32 images: 6n+4 layers, pre-activation blocks, k times as many channels.

Zagoruyko, Komodakis: Wide Residual Networks. BMVC 2016. arXiv:1605.07146. WRN-28-10 is depth 28,
width 10. The batch normalisation and ReLU after the last block belong to the last stage here, so
that its feature map is what the head reads.
"""

from torch import Tensor, nn

from codistill.errors import InputError
from codistill.networks.families.initialise import initialise_convolutions
from codistill.networks.network import Network


def wide_resnet(depth: int, width: int, num_classes: int) -> Network:
    """WRN-`depth`-`width`, without dropout."""
    if depth < 10 or (depth - 4) % 6 != 0 or width < 1:
        raise InputError(f"a WRN has 6n+4 layers (10, 16, 22, 28, ...), width >= 1: not {depth}")
    n = (depth - 4) // 6
    d1, d2, d3 = channels = (16 * width, 32 * width, 64 * width)
    stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
    network = Network(
        [
            nn.Sequential(stem, *_blocks(16, d1, n, stride=1)),
            nn.Sequential(*_blocks(d1, d2, n, stride=2)),
            nn.Sequential(*_blocks(d2, d3, n, 2), nn.BatchNorm2d(d3), nn.ReLU(inplace=True)),
        ],
        channels=channels,
        reductions=(1, 2, 4),
        num_classes=num_classes,
    )
    initialise_convolutions(network)
    return network


class PreActivationBlock(nn.Module):
    """BN, ReLU, 3x3 convolution, twice, and a shortcut.

    Where the number of channels changes, the shortcut is a 1x1 convolution of the activated input,
    as in the authors' code.
    """

    def __init__(self, d_in: int, d_out: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(d_in)
        self.conv1 = nn.Conv2d(d_in, d_out, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(d_out)
        self.conv2 = nn.Conv2d(d_out, d_out, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Conv2d(d_in, d_out, 1, stride, bias=False) if d_in != d_out else None

    def forward(self, x: Tensor) -> Tensor:
        activated = self.relu(self.bn1(x))
        y = self.conv2(self.relu(self.bn2(self.conv1(activated))))
        y += x if self.shortcut is None else self.shortcut(activated)
        return y


def _blocks(d_in: int, d_out: int, n: int, stride: int) -> list[nn.Module]:
    first = PreActivationBlock(d_in, d_out, stride)
    return [first, *(PreActivationBlock(d_out, d_out, stride=1) for _ in range(n - 1))]
