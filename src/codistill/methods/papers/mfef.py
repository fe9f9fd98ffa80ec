"""MFEF: a classifier of multi-scale, attended and fused features teaches the peers.

Zou, Teng, Niu: Multi Scale Feature Extraction and Fusion for Online Knowledge Distillation.
ICANN 2022. arXiv:2206.08224. We know its abstract; everything between the three named parts is
our choice, and is said here and in docs/methods/mfef.md.

    F_k -> multi-scale extraction -> channel attention -> spatial attention -+
                                                                             +-> fusion -> fused z_f
    F_j -> ...                                                              -+
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from codistill.data.batch import Labels
from codistill.errors import InputError, require_not_negative, require_positive
from codistill.methods.fusion import FusionModule
from codistill.methods.length import share_of_epochs
from codistill.methods.losses import ce_loss, kd_loss, ramp_up_remarks, sigmoid_ramp_up
from codistill.methods.method import Method, require_peers
from codistill.networks.families.initialise import initialise_convolutions
from codistill.networks.peers import Outputs, Peers


class MFEF(Method):
    """The ensemble teaches a classifier of processed and fused features, which teaches every peer.

    The losses are those of FFL, and with all three parts off the method is FFL.

    Args:
        peers: two or more networks.
        temperature: T of both divergences.
        ramp_up: epochs until distillation has its full weight; 0 gives it from the start. The
            80 of FFL belong to 300 epochs; the command scales them to the run.
        multi_scale: whether channel groups of each map go through kernels of different sizes.
        channel_attention: whether channels are then weighted.
        spatial_attention: whether positions are then weighted.
        fusion_weight_decay: weight decay of all added parts, in place of the recipe's.
        standardise: whether logits are standardised before they are softened.
    """

    scales = {"ramp_up": share_of_epochs}

    def __init__(
        self,
        peers: Peers,
        temperature: float = 3.0,
        ramp_up: int = 80,
        multi_scale: bool = True,
        channel_attention: bool = True,
        spatial_attention: bool = True,
        fusion_weight_decay: float = 1e-5,
        standardise: bool = False,
    ):
        require_peers(peers, "MFEF fuses the feature maps of peers")
        require_positive(temperature=temperature)
        require_not_negative(ramp_up=ramp_up, fusion_weight_decay=fusion_weight_decay)
        super().__init__(peers)
        channels = [d[-1] for d in peers.channels]
        if multi_scale and min(channels) < len(KERNELS):
            raise InputError(
                f"MFEF divides the channels of a map into {len(KERNELS)} groups, but one has only "
                f"{min(channels)}: give wider networks, or multi_scale=False"
            )
        self.process = nn.ModuleList(
            nn.Sequential(
                *([MultiScale(D)] if multi_scale else []),
                *([ChannelAttention(D)] if channel_attention else []),
                *([SpatialAttention()] if spatial_attention else []),
            )
            for D in channels
        )
        self.fusion = FusionModule(channels, [r[-1] for r in peers.reductions], peers.num_classes)
        self.temperature = temperature
        self.standardise = standardise
        self.ramp_up = ramp_up
        self.fusion_weight_decay = fusion_weight_decay

    def forward(self, views: Sequence[Float[Tensor, "B 3 H W"]]) -> Outputs:
        out = self.peers(views)
        maps = [f(x) for f, x in zip(self.process, out.feature_maps, strict=True)]
        out.extra["fused"] = self.fusion(maps)
        return out

    def remarks(self, epochs: int) -> Iterator[str]:
        return ramp_up_remarks(self.ramp_up, epochs)

    def losses(self, out: Outputs, labels: Labels, epoch: int) -> dict[str, Tensor]:
        z, z_e, z_f = out.logits, out.extra["ensemble"], out.extra["fused"]
        T = self.temperature
        w = sigmoid_ramp_up(epoch, self.ramp_up)
        return {
            "ce": ce_loss(z, labels) + ce_loss(z_f, labels),
            "ekd": w * kd_loss(z_f, z_e.detach(), T, self.standardise),
            "fkd": w * kd_loss(z, z_f.detach(), T, self.standardise),
        }

    def optimizers(self, make: Callable[..., Optimizer]) -> dict[str, Optimizer]:
        own = [*self.process.parameters(), *self.fusion.parameters()]
        peers = {"params": self.peers.parameters()}
        return {"main": make([peers, {"params": own, "weight_decay": self.fusion_weight_decay}])}


KERNELS = (3, 5, 7, 9)


class MultiScale(nn.Module):
    """Divides a map (B, D, H, W) by its channels, and convolves each group with its own kernel.

    Depthwise convolutions of 3x3, 5x5, 7x7 and 9x9; concatenation, batch normalisation, ReLU.
    """

    def __init__(self, D: int):
        super().__init__()
        n = len(KERNELS)
        self.widths = [D // n + (s < D % n) for s in range(n)]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(d, d, size, padding=size // 2, groups=d, bias=False)
            for d, size in zip(self.widths, KERNELS, strict=True)
        )
        self.bn = nn.BatchNorm2d(D)
        initialise_convolutions(self)

    def forward(self, x: Float[Tensor, "B D H W"]) -> Float[Tensor, "B D H W"]:
        groups = x.split(self.widths, dim=1)
        x = torch.cat([c(g) for c, g in zip(self.convolutions, groups, strict=True)], dim=1)
        return self.bn(x).relu()


class ChannelAttention(nn.Module):
    """Weighs every channel by 0 to 1: squeeze and excitation. Hu, Shen, Sun. arXiv:1709.01507."""

    def __init__(self, D: int, ratio: int = 16):
        super().__init__()
        d = max(1, D // ratio)
        self.weigh = nn.Sequential(nn.Linear(D, d), nn.ReLU(inplace=True), nn.Linear(d, D))

    def forward(self, x: Float[Tensor, "B D H W"]) -> Float[Tensor, "B D H W"]:
        return x * self.weigh(x.mean(dim=(2, 3))).sigmoid()[:, :, None, None]


class SpatialAttention(nn.Module):
    """Weighs every position by 0 to 1, by a 7x7 convolution of the mean and maximum over channels.

    Woo, Park, Lee, Kweon: CBAM: Convolutional Block Attention Module. arXiv:1807.06521.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weigh = nn.Conv2d(2, 1, kernel_size=7, padding=3, bias=False)

    def forward(self, x: Float[Tensor, "B D H W"]) -> Float[Tensor, "B D H W"]:
        summary = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return x * self.weigh(summary).sigmoid()
