"""Feature maps of several peers, fused into one that is classified."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from codistill.methods.adapters import MatchSize
from codistill.networks.families.initialise import initialise_convolutions


class FusionModule(nn.Module):
    """Concatenates feature maps, mixes them (3x3 depthwise, 1x1 pointwise) and classifies.

    In the authors' code all maps have D channels and one size. For maps that differ, the mixture
    has as many channels as the widest map, and larger maps are first brought to the size of the
    smallest; both are our choice, since the paper gives no detail.

    Args:
        channels: D_k of each peer's last feature map.
        reductions: side of the image / side of the map, for each peer.
        num_classes: C.
    """

    def __init__(self, channels: Sequence[int], reductions: Sequence[int], num_classes: int):
        super().__init__()
        d_in, d_out = sum(channels), max(channels)
        self.match_size = MatchSize(channels, reductions)
        self.depthwise = nn.Conv2d(d_in, d_in, kernel_size=3, padding=1, groups=d_in, bias=False)
        self.bn1 = nn.BatchNorm2d(d_in)
        self.pointwise = nn.Conv2d(d_in, d_out, kernel_size=1, bias=False)
        self.bn2 = nn.BatchNorm2d(d_out)
        self.fc = nn.Linear(d_out, num_classes)
        initialise_convolutions(self)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return self.classify(self.fuse(maps))

    def fuse(self, maps: Sequence[Float[Tensor, "B _ _ _"]]) -> Float[Tensor, "B D H W"]:
        """One map out of those of all peers."""
        x = torch.cat(self.match_size(maps), dim=1)  # (B, D_1 + ... + D_K, H, W)
        x = F.relu(self.bn1(self.depthwise(x)))
        return F.relu(self.bn2(self.pointwise(x)))

    def classify(self, fused: Float[Tensor, "B D H W"]) -> Float[Tensor, "B C"]:
        """The logits of a fused map."""
        return self.fc(fused.mean(dim=(2, 3)))
