"""FFL: an ensemble teaches a classifier of the peers' fused features, which teaches the peers.

Kim, Hyun, Chung, Kwak: Feature Fusion for Online Mutual Knowledge Distillation.
ICPR 2020. arXiv:1904.09058. Numbers in parentheses are the equations of that paper.

    peers -+-> logits z_1 ... z_K -> ensemble z_e
           |        ^                    |
           |        | FKD                | EKD
           |        |                    v
           +-> feature maps -> fusion -> fused z_f
"""

from collections.abc import Callable, Iterator, Sequence

from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

from codistill.data.batch import Labels
from codistill.errors import require_not_negative, require_positive
from codistill.methods.fusion import FusionModule
from codistill.methods.length import share_of_epochs
from codistill.methods.losses import ce_loss, kd_loss, ramp_up_remarks, sigmoid_ramp_up
from codistill.methods.method import Method, require_peers
from codistill.networks.peers import Outputs, Peers


class FFL(Method):
    """The ensemble teaches a fused classifier, which teaches every peer.

    Feature maps are not detached: the loss of the fused classifier trains the peers too. With both
    `ensemble_teaches` and `fused_teaches` off, the fused classifier learns from labels alone: the
    paper's ablation without mutual knowledge distillation.

    Args:
        peers: two or more networks, of one architecture or of several.
        temperature: T of both divergences.
        ramp_up: epochs until distillation has its full weight; 0 gives it from the start. The
            paper's 80 belong to 300 epochs; the command scales them to the run.
        ensemble_teaches: the fused classifier learns from the peers' ensemble (EKD).
        fused_teaches: each peer learns from the fused classifier (FKD).
        fusion_weight_decay: weight decay of the fusion module, in place of the recipe's.
        standardise: whether logits are standardised before they are softened.
    """

    scales = {"ramp_up": share_of_epochs}

    def __init__(
        self,
        peers: Peers,
        temperature: float = 3.0,
        ramp_up: int = 80,
        ensemble_teaches: bool = True,
        fused_teaches: bool = True,
        fusion_weight_decay: float = 1e-5,
        standardise: bool = False,
    ):
        require_peers(peers, "FFL fuses the feature maps of peers")
        require_positive(temperature=temperature)
        require_not_negative(ramp_up=ramp_up, fusion_weight_decay=fusion_weight_decay)
        super().__init__(peers)
        channels, reductions = zip(
            *((d[-1], r[-1]) for d, r in zip(peers.channels, peers.reductions, strict=True)),
            strict=True,
        )
        self.fusion = FusionModule(channels, reductions, peers.num_classes)
        self.temperature = temperature
        self.standardise = standardise
        self.ramp_up = ramp_up
        self.ensemble_teaches = ensemble_teaches
        self.fused_teaches = fused_teaches
        self.fusion_weight_decay = fusion_weight_decay

    def forward(self, views: Sequence[Float[Tensor, "B 3 H W"]]) -> Outputs:
        out = self.peers(views)
        out.extra["fused"] = self.fusion(out.feature_maps)
        return out

    def remarks(self, epochs: int) -> Iterator[str]:
        return ramp_up_remarks(self.ramp_up, epochs)

    def losses(self, out: Outputs, labels: Labels, epoch: int) -> dict[str, Tensor]:
        z, z_e, z_f = out.logits, out.extra["ensemble"], out.extra["fused"]
        T = self.temperature
        w = sigmoid_ramp_up(epoch, self.ramp_up)

        terms = {"ce": ce_loss(z, labels) + ce_loss(z_f, labels)}  # (1)
        if self.ensemble_teaches:
            terms["ekd"] = w * kd_loss(z_f, z_e.detach(), T, self.standardise)  # (4)
        if self.fused_teaches:
            terms["fkd"] = w * kd_loss(z, z_f.detach(), T, self.standardise)  # (5)
        return terms  # their sum is (6)

    def optimizers(self, make: Callable[..., Optimizer]) -> dict[str, Optimizer]:
        peers = {"params": self.peers.parameters()}
        fusion = {"params": self.fusion.parameters(), "weight_decay": self.fusion_weight_decay}
        return {"main": make([peers, fusion])}
