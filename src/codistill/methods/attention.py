"""How much auxiliary peers listen to each other, and the mixtures of their predictions."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from codistill.methods.adapters import MatchWidth
from codistill.methods.losses import at_least_float32, full_precision


class Attention(nn.Module):
    """log alpha_ab, alpha_ab = softmax_b(L(h_a)^T E(h_b)): how much peer a listens to peer b.

    A peer listens to itself too. L and E are linear maps to an eighth of the channels. Maps of
    different widths are first brought to that of the narrowest, which is our choice.

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
    """For each of J peers, the logits of the weighted mean of all peers' predictions.

    `mix="logits"` averages the logits themselves. With `mix="probabilities"`, the softmax of the
    result at temperature T is the weighted mean of the softmax of `z` at T.
    """
    z = at_least_float32(z)
    if mix == "logits":
        with full_precision(z):
            return torch.einsum("bij,jbc->ibc", log_weights.exp(), z)
    log_p = (z / T).log_softmax(dim=-1).permute(1, 0, 2)  # (B, J, C)
    return T * (log_weights[..., None] + log_p[:, None]).logsumexp(dim=2).transpose(0, 1)
