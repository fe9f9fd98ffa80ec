"""DML: each peer learns from the predictions of every other.

Zhang, Xiang, Hospedales, Lu: Deep Mutual Learning. CVPR 2018. arXiv:1706.00384. Numbers in
parentheses are the equations of that paper.
"""

from torch import Tensor

from codistill.data.batch import Labels
from codistill.errors import require_positive
from codistill.methods.losses import ce_loss, kd_loss
from codistill.methods.method import Method, require_peers
from codistill.networks.peers import Outputs, Peers


class DML(Method):
    """Each peer learns from the labels and from the predictions of every other peer.

    Args:
        peers: two or more networks.
        temperature: T of the divergences. The paper has T = 1; later papers, with whose tables
            ours are compared, use 3.
        standardise: whether logits are standardised before they are softened.
    """

    def __init__(self, peers: Peers, temperature: float = 3.0, standardise: bool = False):
        require_peers(peers, "DML teaches peers by each other")
        require_positive(temperature=temperature)
        super().__init__(peers)
        self.temperature = temperature
        self.standardise = standardise

    def losses(self, out: Outputs, labels: Labels, epoch: int) -> dict[str, Tensor]:
        z, K = out.logits, len(self.peers)
        # A peer's divergence from itself is zero.
        pairs = kd_loss(z[:, None], z.detach()[None], self.temperature, self.standardise)
        return {"ce": ce_loss(z, labels), "kd": pairs / (K - 1)}  # (8)
