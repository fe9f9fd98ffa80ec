"""OKDMDE: OKDDip's two levels, with attention to fused features and classifiers kept diverse.

Li, Huang, Chen, Luo, Cai, Pan: Online Knowledge Distillation via Multi-branch Diversity
Enhancement. ACCV 2020. arXiv:2010.00795. We know its abstract and two later re-implementations;
our own choices are marked here and in docs/methods/okdmde.md.

    auxiliary maps -> FFM -> U --+--> attention -> one target for each auxiliary peer
                 |               |
                 +--- F_a + U ---+
    classifiers W_1 ... W_{K-1}: the CD loss keeps them apart
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from codistill.data.batch import Labels
from codistill.errors import InputError, require_not_negative, require_one_of, require_positive
from codistill.methods.adapters import MatchSize, MatchWidth
from codistill.methods.attention import Attention, mix_predictions
from codistill.methods.length import share_of_epochs
from codistill.methods.losses import (
    ce_loss,
    full_precision,
    kd_loss,
    ramp_up_remarks,
    sigmoid_ramp_up,
)
from codistill.methods.method import Method, require_peers
from codistill.networks.families.initialise import initialise_convolutions
from codistill.networks.peers import Kept, Outputs, Peers


class OKDMDE(Method):
    """Auxiliary peers learn from each other by fusion-aided attention, the leader from their mean.

    Args:
        peers: three or more networks, the last of them the leader.
        temperature: T of the divergences.
        ramp_up: epochs until distillation has its full weight; 0 gives it from the start. The
            80 of OKDDip belong to 300 epochs; the command scales them to the run.
        fusion: whether the attention reads fused features (FFM); without, it is that of OKDDip.
        diversity_weight: weight of the classifier diversification (CD) loss; 0 leaves it out.
        diversity: its form: "product", ||W_a^T W_b||_F, or "normalised", the same of classifiers
            whose class vectors have length 1, divided by the number of classes: it lies between 0
            and 1 and cannot be lowered by shorter weights.
        standardise: whether logits are standardised before they are softened.
    """

    scales = {"ramp_up": share_of_epochs}

    def __init__(
        self,
        peers: Peers,
        temperature: float = 3.0,
        ramp_up: int = 80,
        fusion: bool = True,
        diversity_weight: float = 5e-8,
        diversity: Literal["product", "normalised"] = "product",
        standardise: bool = False,
    ):
        require_peers(
            peers, "OKDMDE has a leader and auxiliary peers that learn from each other", least=3
        )
        require_positive(temperature=temperature)
        require_not_negative(ramp_up=ramp_up, diversity_weight=diversity_weight)
        require_one_of("diversity", diversity, ("product", "normalised"))
        super().__init__(peers)
        channels = [d[-1] for d in peers.channels[:-1]]
        reductions = [r[-1] for r in peers.reductions[:-1]]
        self.fusion = FeatureFusion(channels, reductions) if fusion else None
        self.attention = Attention([min(channels)] * len(channels) if fusion else channels)
        if diversity_weight:
            self.reads_weights = f"diversity_weight is {diversity_weight}"
            for head in peers.heads[:-1]:
                _classifier_weight(head)  # raises InputError now, not in the first step
        self.temperature = temperature
        self.standardise = standardise
        self.ramp_up = ramp_up
        self.diversity_weight = diversity_weight
        self.diversity = diversity

    def forward(self, views: Sequence[Float[Tensor, "B 3 H W"]]) -> Outputs:
        out = self.peers(views)
        out.extra["leader"] = out.logits[-1]
        return out

    def remarks(self, epochs: int) -> Iterator[str]:
        return ramp_up_remarks(self.ramp_up, epochs)

    def losses(self, out: Outputs, labels: Labels, epoch: int) -> dict[str, Tensor]:
        z, leader, T = out.logits[:-1], out.extra["leader"], self.temperature
        w = sigmoid_ramp_up(epoch, self.ramp_up)
        maps = out.feature_maps[:-1]
        maps = maps if self.fusion is None else self.fusion(maps)
        log_a = self.attention(maps)  # (B, K-1, K-1)
        targets = mix_predictions(z, log_a, T, "logits")
        terms = {
            "ce": ce_loss(out.logits, labels),
            # No target is held fixed, as in OKDDip.
            "first": w * kd_loss(z, targets, T, self.standardise),
            "second": w * kd_loss(leader, z.mean(dim=0), T, self.standardise),
        }
        if self.diversity_weight:
            weights = [_classifier_weight(head) for head in self.peers.heads[:-1]]
            terms["cd"] = self.diversity_weight * cd_loss(weights, self.diversity)
        return terms

    def students(self) -> dict[str, Kept]:
        return {"leader": Kept(self.peers, len(self.peers) - 1)}


class FeatureFusion(nn.Module):
    """FFM: F_a + U for every map F_a, where U is made of all of them.

    U is a 1x1 convolution of their concatenation, batch normalisation, ReLU, 3x3 convolution,
    batch normalisation, ReLU [choice]. Maps that differ are first brought to the smallest size and
    the narrowest width [choice].

    Args:
        channels: D_k of the last feature map of each of J auxiliary peers.
        reductions: side of the image / side of that map.
    """

    def __init__(self, channels: Sequence[int], reductions: Sequence[int]):
        super().__init__()
        D = min(channels)
        self.match = nn.Sequential(MatchSize(channels, reductions), MatchWidth(channels))
        self.fuse = nn.Sequential(
            nn.Conv2d(D * len(channels), D, kernel_size=1, bias=False),
            nn.BatchNorm2d(D),
            nn.ReLU(inplace=True),
            nn.Conv2d(D, D, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(D),
            nn.ReLU(inplace=True),
        )
        initialise_convolutions(self.fuse)

    def forward(self, maps: Sequence[Float[Tensor, "B _ _ _"]]) -> list[Float[Tensor, "B D H W"]]:
        matched: list[Tensor] = self.match(maps)
        fused = self.fuse(torch.cat(matched, dim=1))
        return [x + fused for x in matched]


def cd_loss(weights: Sequence[Float[Tensor, "C _"]], form: str) -> Float[Tensor, ""]:
    """Classifier diversification: the sum over pairs a < b of ||W_a^T W_b||_F.

    With `form="normalised"`, every class vector has length 1 and the norm is divided by C, so
    that a pair gives 0 to 1.
    """
    C = len(weights[0])
    if form == "normalised":
        weights = [F.normalize(W, dim=1) / C**0.5 for W in weights]
    with full_precision(weights[0]):
        return torch.stack([(a.T @ b).norm() for a, b in combinations(weights, 2)]).sum()


def _classifier_weight(head: nn.Module) -> Float[Tensor, "C D"]:
    """The weight of the last linear layer of a head."""
    layers = [m for m in head.modules() if isinstance(m, nn.Linear)]
    if not layers:
        raise InputError(
            "OKDMDE keeps the peers' final weights apart, but a head has no linear layer: give "
            "networks that end in nn.Linear, or diversity_weight=0"
        )
    return layers[-1].weight
