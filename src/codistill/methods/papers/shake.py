"""SHAKE: a trained teacher teaches through a shadow of itself, which the students teach back.

Li, Jin: Shadow Knowledge Distillation: Bridging Offline and Online Knowledge Transfer.
NeurIPS 2022. We follow the authors' code, lliai/SHAKE.

    teacher (fixed) -> maps -> shadow -> its classifier (fixed) -> a <--> students z_k
                    -> z_T ----------------------------------> a
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from codistill.data.batch import Labels
from codistill.errors import InputError, require_not_negative, require_positive
from codistill.methods.losses import at_least_float32, ce_loss, kd_loss
from codistill.methods.method import Method
from codistill.methods.modes import Frozen
from codistill.methods.teacher import teacher_of
from codistill.networks import Network
from codistill.networks.families.initialise import initialise_convolutions
from codistill.networks.peers import Outputs, Peers


class SHAKE(Method):
    """Each student and a shadow of a trained teacher learn from each other.

    The teacher is held fixed, in eval mode. Its shadow reads the teacher's feature maps. The shadow
    is trained with the students: it learns from labels, from the teacher's logits and from them.

    Args:
        peers: one or more networks, the students. From several students the shadow learns by the
            mean divergence. This is our choice: the authors have one student.
        teacher: the file of a student (RUN/student.safetensors), or a network, which is copied.
            It is required.
        temperature: T of the divergences.
        hard_weight: weight of the students' cross-entropy (gamma).
        kd_weight: weight of the divergence from the teacher itself (alpha). The authors' scripts
            have 0.
        shadow_weight: weight of all terms with the shadow (beta).
        normalise: whether every row of logits is brought to mean 0 and standard deviation pi for
            the losses, cross-entropies included, as in the authors' code. The student's own logits
            then have an arbitrary size: its top-1 is not affected, but its probabilities mean
            nothing.
        standardise: whether logits are standardised before they are softened.
    """

    def __init__(
        self,
        peers: Peers,
        teacher: str | Path | Network | None = None,
        temperature: float = 4.0,
        hard_weight: float = 1.0,
        kd_weight: float = 0.0,
        shadow_weight: float = 1.0,
        normalise: bool = False,
        standardise: bool = False,
    ):
        require_positive(temperature=temperature)
        require_not_negative(
            hard_weight=hard_weight, kd_weight=kd_weight, shadow_weight=shadow_weight
        )
        if normalise and peers.num_classes < 3:
            raise InputError(
                "two logits with mean 0 and a fixed deviation are always the same two numbers: "
                "normalise is for 3 classes or more"
            )
        super().__init__(peers)
        network = teacher_of(peers, teacher, "SHAKE")
        self.teacher = Frozen(Peers([network]))
        self.shadow = Shadow(network.channels, network.reductions)
        if network.layouts[-1] == "NCHW":
            self.classifier = None  # the teacher's
        else:  # the teacher's head does not read maps
            pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.classifier = pool.append(nn.Linear(network.channels[-1], peers.num_classes))
        self.temperature = temperature
        self.hard_weight = hard_weight
        self.kd_weight = kd_weight
        self.shadow_weight = shadow_weight
        self.normalise = normalise
        self.standardise = standardise

    def forward(self, views: Sequence[Float[Tensor, "B 3 H W"]]) -> Outputs:
        out = self.peers(views)
        taught = self.teacher(views[:1])
        heads: nn.ModuleList = self.teacher.module.heads  # type: ignore[assignment]
        classifier = heads[0] if self.classifier is None else self.classifier
        out.extra["teacher"] = taught.logits[0]
        out.extra["shadow"] = classifier(self.shadow(taught.stages[0][1:]))
        return out

    def losses(self, out: Outputs, labels: Labels, epoch: int) -> dict[str, Tensor]:
        z, z_t, a = out.logits, out.extra["teacher"].detach(), out.extra["shadow"]
        if self.normalise:
            z, z_t, a = normalised(z), normalised(z_t), normalised(a)
        T, beta, K = self.temperature, self.shadow_weight, len(self.peers)

        learnt = kd_loss(a[None], z.detach(), T, self.standardise) / K + ce_loss(a, labels)
        likeness = F.mse_loss(at_least_float32(a), at_least_float32(z_t))
        terms = {
            "ce": self.hard_weight * ce_loss(z, labels),
            "kd": beta * kd_loss(z, a.detach()[None], T, self.standardise),
            "shadow": beta * (learnt + likeness),
        }
        if self.kd_weight:
            terms["teacher"] = self.kd_weight * kd_loss(z, z_t[None], T, self.standardise)
        return terms


class Shadow(nn.Module):
    """Fuses the maps of a teacher's stages, first to last, into one of the last map's shape.

    With F_s the map after stage s, of S: x = F_1; x = down_s(x) + side_s(F_s) for s = 2 ... S;
    last(x). `down_s` is a 3x3 convolution with the stride of stage s, `side_s` a 1x1 and `last` a
    3x3 convolution, each with batch normalisation and ReLU. If a size does not divide the one
    before, the map is averaged down to it [choice].

    Args:
        channels: D after each stage.
        reductions: side of the image / side of the map, after each stage.
    """

    def __init__(self, channels: Sequence[int], reductions: Sequence[int]):
        super().__init__()
        self.down, self.side = nn.ModuleList(), nn.ModuleList()
        for s in range(1, len(channels)):
            stride = max(1, reductions[s] // reductions[s - 1])
            self.down.append(_layer(channels[s - 1], channels[s], kernel=3, stride=stride))
            self.side.append(_layer(channels[s], channels[s], kernel=1))
        self.last = _layer(channels[-1], channels[-1], kernel=3)
        initialise_convolutions(self)

    def forward(self, maps: Sequence[Float[Tensor, "B _ _ _"]]) -> Float[Tensor, "B D H W"]:
        x, *rest = maps
        for down, side, fixed in zip(self.down, self.side, rest, strict=True):
            x = down(x)
            if x.shape[2:] != fixed.shape[2:]:
                x = F.adaptive_avg_pool2d(x, (fixed.shape[2], fixed.shape[3]))
            x = x + side(fixed)
        return self.last(x)


def normalised(z: Float[Tensor, "*K B C"]) -> Float[Tensor, "*K B C"]:
    """Every row of logits with mean 0 and (biased) standard deviation pi; the code has 3.1415."""
    return math.pi * F.layer_norm(at_least_float32(z), z.shape[-1:], eps=1e-7)


def _layer(d_in: int, d_out: int, kernel: int, stride: int = 1) -> nn.Module:
    conv = nn.Conv2d(d_in, d_out, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(d_out), nn.ReLU(inplace=True))
