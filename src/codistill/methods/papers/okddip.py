"""OKDDip: each auxiliary peer weighs the others' predictions; a leader learns from their mean.

Chen, Mei, Wang, Feng, Chen: Online Knowledge Distillation with Diverse Peers.
AAAI 2020. arXiv:1912.00350. The last peer is the group leader, which is kept.

    auxiliary peers -> logits z_1 ... z_{K-1} -> attention -> one target for each of them
                                |
                                +--> mean -> the leader z_K
"""

from collections.abc import Iterator, Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from codistill.data.batch import Labels
from codistill.errors import require_not_negative, require_one_of, require_positive
from codistill.methods.attention import Attention, mix_predictions
from codistill.methods.length import share_of_epochs
from codistill.methods.losses import (
    ce_loss,
    kd_loss,
    ramp_up_remarks,
    sigmoid_ramp_up,
)
from codistill.methods.method import Method, require_peers
from codistill.networks.peers import Kept, Outputs, Peers


class OKDDip(Method):
    """Two levels: auxiliary peers learn from each other by attention, then the leader from them.

    No target is held fixed, as in the authors' code: gradients reach the auxiliary peers through
    the targets too, and the first divergence is all that trains the attention.

    Args:
        peers: three or more networks, the last of them the leader.
        temperature: T of the divergences.
        ramp_up: epochs until distillation has its full weight; 0 gives it from the start. The
            authors' 80 belong to 300 epochs; the command scales them to the run.
        mix: the predictions that the attention averages: "logits", as in the authors' code, or
            "probabilities", softened by T, as in the paper.
        standardise: whether logits are standardised before they are softened.
    """

    scales = {"ramp_up": share_of_epochs}

    def __init__(
        self,
        peers: Peers,
        temperature: float = 3.0,
        ramp_up: int = 80,
        mix: Literal["logits", "probabilities"] = "logits",
        standardise: bool = False,
    ):
        require_peers(
            peers, "OKDDip has a leader and auxiliary peers that learn from each other", least=3
        )
        require_positive(temperature=temperature)
        require_not_negative(ramp_up=ramp_up)
        require_one_of("mix", mix, ("logits", "probabilities"))
        super().__init__(peers)
        self.attention = Attention([d[-1] for d in peers.channels[:-1]])
        self.temperature = temperature
        self.standardise = standardise
        self.ramp_up = ramp_up
        self.mix = mix

    def forward(self, views: Sequence[Float[Tensor, "B 3 H W"]]) -> Outputs:
        out = self.peers(views)
        out.extra["leader"] = out.logits[-1]
        return out

    def remarks(self, epochs: int) -> Iterator[str]:
        return ramp_up_remarks(self.ramp_up, epochs)

    def losses(self, out: Outputs, labels: Labels, epoch: int) -> dict[str, Tensor]:
        z, leader, T = out.logits[:-1], out.extra["leader"], self.temperature
        w = sigmoid_ramp_up(epoch, self.ramp_up)
        log_a = self.attention(out.feature_maps[:-1])  # (B, K-1, K-1)
        targets = mix_predictions(z, log_a, T, self.mix)
        return {
            "ce": ce_loss(out.logits, labels),
            "first": w * kd_loss(z, targets, T, self.standardise),
            "second": w * kd_loss(leader, z.mean(dim=0), T, self.standardise),
        }

    def students(self) -> dict[str, Kept]:
        return {"leader": Kept(self.peers, len(self.peers) - 1)}
