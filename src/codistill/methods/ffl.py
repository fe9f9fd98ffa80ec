"""FFL: an ensemble teaches a classifier of the peers' fused features, which teaches the peers.

Kim, Hyun, Chung, Kwak: Feature Fusion for Online Mutual Knowledge Distillation.
ICPR 2020. arXiv:1904.09058. Numbers in parentheses are the equations of that paper.

    peers -+-> logits z_1 ... z_K -> ensemble z_e
           |        ^                    |
           |        | FKD                | EKD
           |        |                    v
           +-> feature maps -> fusion -> fused z_f
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from codistill.adapters import MatchSize
from codistill.data.batch import Labels
from codistill.errors import InputError, require_not_negative, require_positive
from codistill.losses import ce_loss, kd_loss, sigmoid_ramp_up
from codistill.method import Method
from codistill.networks.initialise import initialise_convolutions
from codistill.peers import Outputs, Peers


class FFL(Method):
    """The ensemble teaches a fused classifier, which teaches every peer.

    Feature maps are not detached: the loss of the fused classifier trains the peers too. With both
    `ensemble_teaches` and `fused_teaches` off, the fused classifier learns from labels alone: the
    paper's ablation without mutual knowledge distillation.

    Args:
        peers: two or more networks, of one architecture or of several.
        temperature: T of both divergences.
        ramp_up: epochs until distillation has its full weight; 0 gives it from the start. The
            paper's 80 belong to 300 epochs: scale them with the length of the training.
        ensemble_teaches: the fused classifier learns from the peers' ensemble (EKD).
        fused_teaches: each peer learns from the fused classifier (FKD).
        fusion_weight_decay: weight decay of the fusion module, in place of the recipe's.
    """

    def __init__(
        self,
        peers: Peers,
        temperature: float = 3.0,
        ramp_up: int = 80,
        ensemble_teaches: bool = True,
        fused_teaches: bool = True,
        fusion_weight_decay: float = 1e-5,
    ):
        if len(peers) < 2:
            raise InputError("FFL fuses the feature maps of peers: it needs at least 2, not 1")
        require_positive(temperature=temperature)
        require_not_negative(ramp_up=ramp_up, fusion_weight_decay=fusion_weight_decay)
        super().__init__(peers)
        channels, reductions = zip(
            *((d[-1], r[-1]) for d, r in zip(peers.channels, peers.reductions, strict=True)),
            strict=True,
        )
        self.fusion = FusionModule(channels, reductions, peers.num_classes)
        self.temperature = temperature
        self.ramp_up = ramp_up
        self.ensemble_teaches = ensemble_teaches
        self.fused_teaches = fused_teaches
        self.fusion_weight_decay = fusion_weight_decay

    def forward(self, views: Sequence[Float[Tensor, "B 3 H W"]]) -> Outputs:
        out = self.peers(views)
        out.extra["fused"] = self.fusion(out.feature_maps)
        return out

    def losses(self, out: Outputs, labels: Labels, epoch: int) -> dict[str, Tensor]:
        z, z_e, z_f = out.logits, out.extra["ensemble"], out.extra["fused"]
        T = self.temperature
        w = sigmoid_ramp_up(epoch, self.ramp_up)

        terms = {"ce": ce_loss(z, labels) + ce_loss(z_f, labels)}  # (1)
        if self.ensemble_teaches:
            terms["ekd"] = w * kd_loss(z_f, z_e.detach(), T)  # (4)
        if self.fused_teaches:
            terms["fkd"] = w * kd_loss(z, z_f.detach(), T)  # (5)
        return terms  # their sum is (6)

    def optimizers(self, make: Callable[..., Optimizer]) -> dict[str, Optimizer]:
        peers = {"params": self.peers.parameters()}
        fusion = {"params": self.fusion.parameters(), "weight_decay": self.fusion_weight_decay}
        return {"main": make([peers, fusion])}


class FusionModule(nn.Module):
    """Concatenates feature maps, mixes them (3x3 depthwise, 1x1 pointwise) and classifies.

    As in the authors' code, where all maps have D channels and one size. For maps that differ, the
    mixture has as many channels as the widest, and larger maps are first brought to the size of
    the smallest; both are our choice, since the paper gives no detail.

    Args:
        channels: D_k of each peer's last feature map.
        reductions: side of the image / side of the map, of each peer.
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
        x = torch.cat(self.match_size(maps), dim=1)  # (B, D_1 + ... + D_K, H, W)
        x = F.relu(self.bn1(self.depthwise(x)))
        x = F.relu(self.bn2(self.pointwise(x)))  # (B, D, H, W)
        return self.fc(x.mean(dim=(2, 3)))  # (B, C)
