"""KD: a teacher that was trained before teaches every peer.

Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network.
NeurIPS workshop 2014. arXiv:1503.02531. Not online: the reference that costs two trainings.
"""

from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from codistill.data.batch import Labels
from codistill.errors import require_not_negative, require_positive
from codistill.methods.losses import ce_loss, kd_loss
from codistill.methods.method import Method
from codistill.methods.modes import Frozen
from codistill.methods.teacher import teacher_of
from codistill.networks import Network
from codistill.networks.peers import Outputs, Peers


class KD(Method):
    """Each peer learns from labels and from a teacher that is held fixed, in eval mode.

    The teacher is evaluated and reported too: its accuracy shows at once if it was trained on other
    classes or on images normalised otherwise.

    Args:
        peers: one or more networks.
        teacher: the file of a student (RUN/student.safetensors), or a network, which is copied.
            It has to be given.
        temperature: T of the divergence.
        kd_weight: weight of the divergence.
        standardise: whether logits are standardised before they are softened.
    """

    def __init__(
        self,
        peers: Peers,
        teacher: str | Path | Network | None = None,
        temperature: float = 3.0,
        kd_weight: float = 1.0,
        standardise: bool = False,
    ):
        require_positive(temperature=temperature)
        require_not_negative(kd_weight=kd_weight)
        super().__init__(peers)
        self.teacher = Frozen(teacher_of(peers, teacher, "KD"))
        self.temperature = temperature
        self.standardise = standardise
        self.kd_weight = kd_weight

    def forward(self, views: Sequence[Float[Tensor, "B 3 H W"]]) -> Outputs:
        out = self.peers(views)
        out.extra["teacher"] = self.teacher(views[0])
        return out

    def losses(self, out: Outputs, labels: Labels, epoch: int) -> dict[str, Tensor]:
        kd = kd_loss(out.logits, out.extra["teacher"].detach(), self.temperature, self.standardise)
        return {"ce": ce_loss(out.logits, labels), "kd": self.kd_weight * kd}
