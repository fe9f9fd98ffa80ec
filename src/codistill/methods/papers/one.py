"""ONE: branches on one trunk learn from their own gated ensemble.

Lan, Zhu, Gong: Knowledge Distillation by On-the-Fly Native Ensemble.
NeurIPS 2018. arXiv:1806.04606. Numbers in parentheses are the equations of that paper.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from codistill.data.batch import Labels
from codistill.errors import InputError, require_not_negative, require_positive
from codistill.methods.length import share_of_epochs
from codistill.methods.losses import ce_loss, kd_loss, ramp_up_remarks, sigmoid_ramp_up
from codistill.methods.method import Method, require_peers
from codistill.networks.peers import Outputs, Peers


class ONE(Method):
    """Every branch learns from the gated ensemble of all.

    A gate reads the trunk's feature map and weighs the branches for each image.

    Args:
        peers: two or more branches on a trunk.
        temperature: T of the divergences.
        ramp_up: epochs until distillation has its full weight; 0 gives it from the start. The
            authors' 80 belong to 300 epochs; the command scales them to the run.
        standardise: whether logits are standardised before they are softened.
    """

    scales = {"ramp_up": share_of_epochs}

    def __init__(
        self, peers: Peers, temperature: float = 3.0, ramp_up: int = 80, standardise: bool = False
    ):
        if not peers.shared:
            raise InputError(
                "ONE gates on the feature map of a trunk, and independent peers have none: share "
                "at least one stage (shared >= 1), or take dml"
            )
        require_peers(peers, "ONE gates several branches")
        require_positive(temperature=temperature)
        require_not_negative(ramp_up=ramp_up)
        super().__init__(peers)
        K, D = len(peers), peers.channels[0][peers.shared - 1]
        linear = nn.Linear(D, K, bias=False)  # a bias, as in the authors' code, is lost in the norm
        self.gate = nn.Sequential(linear, nn.BatchNorm1d(K), nn.ReLU(), nn.Softmax(dim=1))
        self.temperature = temperature
        self.standardise = standardise
        self.ramp_up = ramp_up

    def forward(self, views: Sequence[Float[Tensor, "B 3 H W"]]) -> Outputs:
        out = self.peers(views)
        trunk = out.stages[0][self.peers.shared]  # (B, D, H, W)
        g = self.gate(trunk.mean(dim=(2, 3)))  # (B, K)
        out.extra["gated"] = torch.einsum("bk,kbc->bc", g, out.logits)  # (4)
        return out

    def remarks(self, epochs: int) -> Iterator[str]:
        return ramp_up_remarks(self.ramp_up, epochs)

    def losses(self, out: Outputs, labels: Labels, epoch: int) -> dict[str, Tensor]:
        z, z_m = out.logits, out.extra["gated"]
        w = sigmoid_ramp_up(epoch, self.ramp_up)
        ce = ce_loss(z, labels) + ce_loss(z_m, labels)
        kd = w * kd_loss(z, z_m.detach(), self.temperature, self.standardise)
        return {"ce": ce, "kd": kd}  # (8)
