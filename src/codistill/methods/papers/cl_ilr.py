"""CL-ILR: the heads of one network learn from the mean of the other heads.

Song, Chai: Collaborative Learning for Deep Neural Networks. NeurIPS 2018. arXiv:1805.11761.
"CL" is the collaborative learning of the heads; "ILR" the intermediate-level representation that
they share, here: the trunk.
"""

from collections.abc import Iterator, Sequence

from jaxtyping import Float
from torch import Tensor

from codistill.data.batch import Labels
from codistill.errors import require_not_negative, require_positive
from codistill.methods.losses import ce_loss, kd_loss, ramp_up_remarks, sigmoid_ramp_up
from codistill.methods.method import Method, require_peers
from codistill.networks.peers import Outputs, Peers


class CLILR(Method):
    """Each head learns from labels and from the mean of the others' logits.

    The gradient is divided by the number of branches where the trunk splits, so that the trunk
    learns as fast as that of one network. Independent peers have no split: nothing is divided.

    Two re-implementations differ. The defaults are MCL-OKD's. OKDDip's is `temperature=3,
    hard_weight=1, soft_weight=1, ramp_up=80, hold_targets=False`.

    Args:
        peers: two or more networks.
        temperature: T of the divergences.
        hard_weight: weight of the cross-entropy.
        soft_weight: weight of the divergences.
        ramp_up: epochs until distillation has its full weight; 0 gives it from the start.
            OKDDip's 80 belong to 300 epochs: give 80 * E / 300 in E epochs.
        hold_targets: whether a head's target gives no gradient to the other heads.
        standardise: whether logits are standardised before they are softened.
    """

    def __init__(
        self,
        peers: Peers,
        temperature: float = 2.0,
        hard_weight: float = 0.5,
        soft_weight: float = 0.5,
        ramp_up: int = 0,
        hold_targets: bool = True,
        standardise: bool = False,
    ):
        require_peers(peers, "CL-ILR teaches heads by the others")
        require_positive(temperature=temperature)
        require_not_negative(hard_weight=hard_weight, soft_weight=soft_weight, ramp_up=ramp_up)
        super().__init__(peers)
        self.temperature = temperature
        self.hard_weight = hard_weight
        self.soft_weight = soft_weight
        self.ramp_up = ramp_up
        self.hold_targets = hold_targets
        self.standardise = standardise

    def forward(self, views: Sequence[Float[Tensor, "B 3 H W"]]) -> Outputs:
        out = self.peers(views)
        for x in out.split:
            if x.requires_grad:
                x.register_hook(lambda gradient: gradient / len(self.peers))
        return out

    def remarks(self, epochs: int) -> Iterator[str]:
        return ramp_up_remarks(self.ramp_up, epochs)

    def losses(self, out: Outputs, labels: Labels, epoch: int) -> dict[str, Tensor]:
        z, K = out.logits, len(self.peers)
        others = (z.sum(dim=0) - z) / (K - 1)  # (K, B, C)
        targets = others.detach() if self.hold_targets else others
        w = self.soft_weight * sigmoid_ramp_up(epoch, self.ramp_up)
        return {
            "ce": self.hard_weight * ce_loss(z, labels),
            "kd": w * kd_loss(z, targets, self.temperature, self.standardise),
        }
