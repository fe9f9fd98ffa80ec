"""AFD as it was before its repair: discriminators that may start certain, and a coupled decay."""

from collections.abc import Sequence

from torch import nn

from codistill.methods import AFD
from codistill.networks.families.initialise import initialise_convolutions
from codistill.networks.peers import Peers


class Before(AFD):
    """AFD with its former defaults, and without what the command scales to a run.

    Args:
        peers: two or more networks.
        adversarial_milestones: epochs, which recipes gave for the length of their run.
    """

    scales = {}

    def __init__(self, peers: Peers, adversarial_milestones: Sequence[int] = (75, 150)):
        super().__init__(
            peers,
            adversarial_weight_decay=0.1,
            decoupled_decay=False,
            adversarial_milestones=adversarial_milestones,
        )
        for layer in self.discriminators.modules():
            if isinstance(layer, nn.Conv2d):
                layer.reset_parameters()  # which draws the bias of the last one
        initialise_convolutions(self.discriminators)
