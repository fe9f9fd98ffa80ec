"""FFSD: diverse students give a fused feature map, from which a leader learns.

Li, Lin, Wang, Wu, Tian, Shao, Ji: Distilling a Powerful Student Model via Online Knowledge
Distillation. TNNLS 2022. arXiv:2103.14473. We follow the authors' code, SJLeo/FFSD. The last peer
is the leader, which is kept.

    students <-> students -> logits -> ensemble ----+
                    |                               v
                    +-> maps (held fixed) -> fusion -> fused z_f, fused map -> leader
"""

import itertools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from codistill.data.batch import Labels
from codistill.errors import require_not_negative, require_positive
from codistill.methods.fusion import FusionModule
from codistill.methods.length import share_of_epochs
from codistill.methods.losses import at_least_float32, ce_loss, kd_loss, sigmoid_ramp_up
from codistill.methods.method import Method, require_peers
from codistill.networks.families.initialise import initialise_convolutions
from codistill.networks.peers import Kept, Outputs, Peers


class FFSD(Method):
    """Students learn from each other, a fusion learns from them, and a leader from the fusion.

    The fusion reads the students' maps. It sends no gradient to the students, and the leader sends
    none to either. The paper's self-distillation of the maps inside a network is left out.

    Args:
        peers: three or more networks, the last of them the leader.
        temperature: T of the divergences.
        diversity_weight: weight of the term that makes each student attend to other places than
            the student before it.
        attention_weight: weight of the term that makes the leader attend to the same places as the
            fused map and the students' maps.
        warm_up: epochs until these two terms have their full weight; 0 gives it from the start. The
            authors' 5 belong to 300 epochs; the command scales them to the run.
        fusion_weight_decay: weight decay of the fusion module, in place of the recipe's.
        standardise: whether logits are standardised before they are softened.
    """

    scales = {"warm_up": share_of_epochs}

    def __init__(
        self,
        peers: Peers,
        temperature: float = 2.0,
        diversity_weight: float = 1e-5,
        attention_weight: float = 10.0,
        warm_up: int = 5,
        fusion_weight_decay: float = 1e-5,
        standardise: bool = False,
    ):
        require_peers(peers, "FFSD has a leader and students that learn from each other", least=3)
        require_positive(temperature=temperature)
        require_not_negative(
            diversity_weight=diversity_weight,
            attention_weight=attention_weight,
            warm_up=warm_up,
            fusion_weight_decay=fusion_weight_decay,
        )
        super().__init__(peers)
        *channels, D = [d[-1] for d in peers.channels]
        reductions = [r[-1] for r in peers.reductions[:-1]]
        self.fusion = FusionModule(channels, reductions, peers.num_classes)
        self.spread = _spread(D, sum(channels))
        self.temperature = temperature
        self.diversity_weight = diversity_weight
        self.attention_weight = attention_weight
        self.warm_up = warm_up
        self.fusion_weight_decay = fusion_weight_decay
        self.standardise = standardise

    def forward(self, views: Sequence[Float[Tensor, "B 3 H W"]]) -> Outputs:
        out = self.peers(views)
        fused = self.fusion.fuse([x.detach() for x in out.feature_maps[:-1]])
        out.hidden["fused"] = fused
        out.extra["fused"] = self.fusion.classify(fused)
        out.extra["leader"] = out.logits[-1]
        return out

    def losses(self, out: Outputs, labels: Labels, epoch: int) -> dict[str, Tensor]:
        z, z_f, leader = out.logits[:-1], out.extra["fused"], out.extra["leader"]
        *maps, F_l = out.feature_maps
        T, J = self.temperature, len(z)
        w = sigmoid_ramp_up(epoch + 1, self.warm_up)  # the authors count epochs from 1

        pairs = kd_loss(z[:, None], z.detach()[None], T, self.standardise)
        apart = [diversity_loss(x, before.detach()) for before, x in itertools.pairwise(maps)]
        alike = [
            attention_loss([F_l], [out.hidden["fused"].detach()]),
            attention_loss([self.spread(F_l)], [x.detach() for x in maps]),
        ]
        return {
            "ce": ce_loss(out.logits, labels) + ce_loss(z_f, labels),
            "dml": pairs / (J - 1),
            "diversity": w * self.diversity_weight * torch.stack(apart).sum(),
            "ekd": kd_loss(z_f, z.detach().mean(dim=0), T, self.standardise),
            "fkd": kd_loss(leader, z_f.detach(), T, self.standardise),
            "attention": w * self.attention_weight * torch.stack(alike).sum(),
        }

    def optimizers(self, make: Callable[..., Optimizer]) -> dict[str, Optimizer]:
        others = [*self.peers.parameters(), *self.spread.parameters()]
        fusion = {"params": self.fusion.parameters(), "weight_decay": self.fusion_weight_decay}
        return {"main": make([{"params": others}, fusion])}

    def students(self) -> dict[str, Kept]:
        return {"leader": Kept(self.peers, len(self.peers) - 1)}


def attention_loss(
    first: Sequence[Float[Tensor, "B _ _ _"]], second: Sequence[Float[Tensor, "B _ _ _"]]
) -> Float[Tensor, ""]:
    """The mean squared difference of two attention maps, each of length 1 for an image.

    Args:
        first: feature maps whose channels count as those of one map.
        second: feature maps to compare with, treated alike.
    """
    x, y = _to_one_size([_attention(first), _attention(second)])
    return (F.normalize(x) - F.normalize(y)).square().mean()


def diversity_loss(
    own: Float[Tensor, "B _ _ _"], other: Float[Tensor, "B _ _ _"]
) -> Float[Tensor, ""]:
    """Draws the attention of a feature map away from the places that another map attends to.

    Let y be the other's attention divided by its length. The target is length - y, except in the
    third of the places where y is least: there it is y. The authors' code does the same for maps of
    one size.
    """
    x, y = _to_one_size([_attention([own]), _attention([other])])
    length = y.norm(dim=1, keepdim=True)
    x, y = F.normalize(x), F.normalize(y)
    least = y.topk(max(1, y.shape[1] // 3), dim=1, largest=False).values[:, -1:]
    target = (length / 2 - y) * (y - least).sign() + length / 2
    return (x - target).square().mean()


def _attention(maps: Sequence[Float[Tensor, "B _ _ _"]]) -> Float[Tensor, "B H W"]:
    """The mean of the squares of all channels, at the size of the smallest map [choice]."""
    sums = [at_least_float32(x).square().sum(dim=1) for x in maps]
    return torch.stack(_pooled(sums)).sum(dim=0) / sum(x.shape[1] for x in maps)


def _to_one_size(attentions: Sequence[Float[Tensor, "B _ _"]]) -> list[Float[Tensor, "B HW"]]:
    return [x.flatten(1) for x in _pooled(attentions)]


def _pooled(attentions: Sequence[Float[Tensor, "B _ _"]]) -> list[Float[Tensor, "B H W"]]:
    """Averaged down to the smallest of their sizes."""
    height, width = (min(x.shape[dim] for x in attentions) for dim in (1, 2))
    return [F.adaptive_avg_pool2d(x, (height, width)) for x in attentions]


def _spread(d_in: int, d_out: int) -> nn.Module:
    """The leader's map (B, D, H, W) as wide as those of all students: 3x3 depthwise, 1x1."""
    layers = nn.Sequential(
        nn.Conv2d(d_in, d_in, kernel_size=3, padding=1, groups=d_in, bias=False),
        nn.BatchNorm2d(d_in),
        nn.ReLU(inplace=True),
        nn.Conv2d(d_in, d_out, kernel_size=1, bias=False),
        nn.BatchNorm2d(d_out),
        nn.ReLU(inplace=True),
    )
    initialise_convolutions(layers)
    return layers
