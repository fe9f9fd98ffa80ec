"""Independent: each peer learns from the labels alone.

No paper: the baseline that every method has to beat. One peer is the network trained alone; the
ensemble of several is the bar for every method that trains as many networks.
"""

from torch import Tensor

from codistill.data.batch import Labels
from codistill.methods.losses import ce_loss
from codistill.methods.method import Method
from codistill.networks.peers import Outputs


class Independent(Method):
    """Each peer learns from the labels alone."""

    def losses(self, out: Outputs, labels: Labels, epoch: int) -> dict[str, Tensor]:
        return {"ce": ce_loss(out.logits, labels)}
