"""Makes feature maps of different networks fit together."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from codistill.networks.families.initialise import initialise_convolutions


class MatchSize(nn.Module):
    """Brings feature maps (B, D_k, H_k, W_k) to the smallest of their sizes; D_k stays.

    A larger map goes through a convolution whose kernel and stride are the ratio of the sizes,
    batch normalisation and ReLU. If the ratio is no whole number, the result is averaged down. Maps
    of one size pass untouched, and nothing is added to the method.

    Args:
        channels: D_k of each map.
        reductions: side of the image / side of the map, of each map.
    """

    def __init__(self, channels: Sequence[int], reductions: Sequence[int]):
        super().__init__()
        strides = [max(reductions) // r for r in reductions]
        self.layers = nn.ModuleList(
            nn.Identity() if stride == 1 else _downsample(d, stride)
            for d, stride in zip(channels, strides, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        maps = [layer(x) for layer, x in zip(self.layers, maps, strict=True)]
        height, width = (min(x.shape[dim] for x in maps) for dim in (2, 3))
        return [
            x if x.shape[2:] == (height, width) else F.adaptive_avg_pool2d(x, (height, width))
            for x in maps
        ]


class MatchWidth(nn.Module):
    """Brings feature maps (B, D_k, H_k, W_k) to one number of channels; H_k and W_k stay.

    A map of another width goes through a 1x1 convolution, batch normalisation and ReLU. Maps of
    that width pass untouched.

    Args:
        channels: D_k of each map.
        width: the number of channels of all maps. Default: that of the narrowest.
    """

    def __init__(self, channels: Sequence[int], width: int | None = None):
        super().__init__()
        self.width = min(channels) if width is None else width
        self.layers = nn.ModuleList(
            nn.Identity() if d == self.width else _project(d, self.width) for d in channels
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [layer(x) for layer, x in zip(self.layers, maps, strict=True)]


def _project(d_in: int, d_out: int) -> nn.Module:
    conv = nn.Conv2d(d_in, d_out, kernel_size=1, bias=False)
    layer = nn.Sequential(conv, nn.BatchNorm2d(d_out), nn.ReLU(inplace=True))
    initialise_convolutions(layer)
    return layer


def _downsample(d: int, stride: int) -> nn.Module:
    conv = nn.Conv2d(d, d, kernel_size=stride, stride=stride, bias=False)
    layer = nn.Sequential(conv, nn.BatchNorm2d(d), nn.ReLU(inplace=True))
    initialise_convolutions(layer)
    return layer
