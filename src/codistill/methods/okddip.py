"""OKDDip: each auxiliary peer weighs what the others say; a leader learns from their mean.

Chen, Mei, Wang, Feng, Chen: Online Knowledge Distillation with Diverse Peers.
AAAI 2020. arXiv:1912.00350. The last peer is the group leader, which is kept.

    auxiliary peers -> logits z_1 ... z_{K-1} -> attention -> one target for each of them
                                |
                                +--> mean -> the leader z_K
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from codistill.adapters import MatchWidth
from codistill.data.batch import Labels
from codistill.errors import InputError, require_not_negative, require_one_of, require_positive
from codistill.losses import at_least_float32, ce_loss, full_precision, kd_loss, sigmoid_ramp_up
from codistill.method import Method
from codistill.peers import Outputs, Peers


class OKDDip(Method):
    """Two levels: auxiliary peers learn from each other by attention, then the leader from them.

    No target is held fixed, as in the authors' code: gradients reach the auxiliary peers through
    the targets too, and the first divergence is all that trains the attention.

    Args:
        peers: three or more networks, the last of them the leader.
        temperature: T of the divergences.
        ramp_up: epochs until distillation has its full weight; 0 gives it from the start. The
            authors' 80 belong to 300 epochs: scale them with the length of the training.
        mix: what the attention averages: "logits", as the authors' code does, or "probabilities",
            softened by T, as the paper says.
    """

    def __init__(
        self,
        peers: Peers,
        temperature: float = 3.0,
        ramp_up: int = 80,
        mix: Literal["logits", "probabilities"] = "logits",
    ):
        if len(peers) < 3:
            raise InputError(
                "OKDDip has a leader and auxiliary peers that learn from each other: it needs at "
                f"least 3 peers, not {len(peers)}"
            )
        require_positive(temperature=temperature)
        require_not_negative(ramp_up=ramp_up)
        require_one_of("mix", mix, ("logits", "probabilities"))
        super().__init__(peers)
        self.attention = Attention([d[-1] for d in peers.channels[:-1]])
        self.temperature = temperature
        self.ramp_up = ramp_up
        self.mix = mix

    def forward(self, views: Sequence[Float[Tensor, "B 3 H W"]]) -> Outputs:
        out = self.peers(views)
        out.extra["leader"] = out.logits[-1]
        return out

    def losses(self, out: Outputs, labels: Labels, epoch: int) -> dict[str, Tensor]:
        z, leader, T = out.logits[:-1], out.extra["leader"], self.temperature
        w = sigmoid_ramp_up(epoch, self.ramp_up)
        log_a = self.attention(out.feature_maps[:-1])  # (B, K-1, K-1)
        targets = mix_predictions(z, log_a, T, self.mix)
        return {
            "ce": ce_loss(out.logits, labels),
            "first": w * kd_loss(z, targets, T),
            "second": w * kd_loss(leader, z.mean(dim=0), T),
        }

    def students(self) -> dict[str, tuple[Peers, int]]:
        return {"leader": (self.peers, len(self.peers) - 1)}


class Attention(nn.Module):
    """log alpha_ab, alpha_ab = softmax_b(L(h_a)^T E(h_b)): how much peer a listens to peer b.

    Itself included. L and E are linear maps to an eighth of the channels. Maps of different widths
    are first brought to that of the narrowest, which is our choice.

    Args:
        channels: D_k of the last feature map of each of J auxiliary peers.
    """

    def __init__(self, channels: list[int]):
        super().__init__()
        self.match_width = MatchWidth(channels)
        D = self.match_width.width
        self.query = nn.Linear(D, max(1, D // 8), bias=False)  # L
        self.key = nn.Linear(D, max(1, D // 8), bias=False)  # E

    def forward(self, maps: list[Tensor]) -> Float[Tensor, "B J J"]:
        maps = self.match_width(maps)
        h = torch.stack([x.mean(dim=(2, 3)) for x in maps], dim=1)  # (B, J, D)
        query, key = at_least_float32(self.query(h)), at_least_float32(self.key(h))
        with full_precision(h):
            return (query @ key.mT).log_softmax(dim=-1)


def mix_predictions(
    z: Float[Tensor, "J B C"], log_weights: Float[Tensor, "B J J"], T: float, mix: str
) -> Float[Tensor, "J B C"]:
    """For each of J peers, logits that stand for the weighted mean of all.

    With `mix="probabilities"`, their softmax at temperature T is the weighted mean of the softmax
    of `z` at T.
    """
    z = at_least_float32(z)
    if mix == "logits":
        with full_precision(z):
            return torch.einsum("bij,jbc->ibc", log_weights.exp(), z)
    log_p = (z / T).log_softmax(dim=-1).permute(1, 0, 2)  # (B, J, C)
    return T * (log_weights[..., None] + log_p[:, None]).logsumexp(dim=2).transpose(0, 1)
