"""KD: a teacher that was trained before teaches every peer.

Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network.
NeurIPS workshop 2014. arXiv:1503.02531. Not online: the reference that costs two trainings.
"""

import copy
from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from codistill.data.batch import Labels
from codistill.errors import InputError, require_not_negative, require_positive
from codistill.methods.losses import ce_loss, kd_loss
from codistill.methods.method import Method
from codistill.methods.modes import Frozen
from codistill.networks import Network
from codistill.networks.peers import Outputs, Peers
from codistill.networks.student import read_student


class KD(Method):
    """Each peer learns from labels and from a teacher that is held fixed, in eval mode.

    The teacher is evaluated and reported too, so that one which was trained on other classes, or
    on images normalised otherwise, is seen at once.

    Args:
        peers: one or more networks.
        teacher: the file of a student (RUN/student.safetensors), or a network, which is copied.
            There is none by default, and none is made up.
        temperature: T of the divergence.
        kd_weight: of the divergence.
    """

    def __init__(
        self,
        peers: Peers,
        teacher: str | Path | Network | None = None,
        temperature: float = 3.0,
        kd_weight: float = 1.0,
    ):
        require_positive(temperature=temperature)
        require_not_negative(kd_weight=kd_weight)
        if teacher is None:
            raise InputError(
                "KD needs a teacher that was trained before: give --method.teacher "
                "RUN/student.safetensors, or KD(peers, teacher=network)"
            )
        super().__init__(peers)
        network = _network(teacher)
        if network.num_classes != peers.num_classes:
            raise InputError(
                f"the teacher tells {network.num_classes} classes apart and the peers "
                f"{peers.num_classes}: give a teacher of the same classes"
            )
        self.teacher = Frozen(copy.deepcopy(network))
        self.temperature = temperature
        self.kd_weight = kd_weight

    def forward(self, views: Sequence[Float[Tensor, "B 3 H W"]]) -> Outputs:
        out = self.peers(views)
        out.extra["teacher"] = self.teacher(views[0])
        return out

    def losses(self, out: Outputs, labels: Labels, epoch: int) -> dict[str, Tensor]:
        kd = kd_loss(out.logits, out.extra["teacher"].detach(), self.temperature)
        return {"ce": ce_loss(out.logits, labels), "kd": self.kd_weight * kd}


def _network(teacher: str | Path | Network) -> Network:
    if isinstance(teacher, Network):
        return teacher
    if not isinstance(teacher, str | Path):
        raise InputError(
            f"the teacher is a {type(teacher).__name__}: give a codistill.Network, or the file of "
            "a student"
        )
    if Path(teacher).is_dir():
        raise InputError(f"{teacher} is a folder: give {Path(teacher) / 'student.safetensors'}")
    return read_student(teacher)[0]
