"""CL-ILR: the heads of one network learn from the mean of the other heads.

Song, Chai: Collaborative Learning for Deep Neural Networks. NeurIPS 2018. arXiv:1805.11761.
"CL" is the collaborative learning of the heads; "ILR" the intermediate-level representation that
they share, here: the trunk.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from codistill.data.batch import Labels
from codistill.errors import InputError, require_fraction, require_positive
from codistill.methods.losses import ce_loss, kd_loss
from codistill.methods.method import Method
from codistill.networks.peers import Outputs, Peers


class CLILR(Method):
    """Each head learns from labels and from the mean of the others' logits.

    Where the trunk splits, the gradient is divided by the number of branches, so that the trunk
    learns as fast as that of one network. Independent peers have no split, and nothing is divided.

    Args:
        peers: two or more networks.
        temperature: T of the divergences.
        hard_weight: of the cross-entropy; the divergence has what is left to 1.
    """

    def __init__(self, peers: Peers, temperature: float = 2.0, hard_weight: float = 0.5):
        if len(peers) < 2:
            raise InputError("CL-ILR teaches heads by the others: it needs at least 2, not 1")
        require_positive(temperature=temperature)
        require_fraction(hard_weight=hard_weight)
        super().__init__(peers)
        self.temperature = temperature
        self.hard_weight = hard_weight

    def forward(self, views: Sequence[Float[Tensor, "B 3 H W"]]) -> Outputs:
        out = self.peers(views)
        for x in out.split:
            if x.requires_grad:
                x.register_hook(lambda gradient: gradient / len(self.peers))
        return out

    def losses(self, out: Outputs, labels: Labels, epoch: int) -> dict[str, Tensor]:
        z, K = out.logits, len(self.peers)
        others = (z.sum(dim=0) - z) / (K - 1)  # (K, B, C)
        kd = kd_loss(z, others.detach(), self.temperature)
        beta = self.hard_weight
        return {"ce": beta * ce_loss(z, labels), "kd": (1 - beta) * kd}
