"""AFD: peers also learn each other's feature maps, by fooling discriminators.

Chung, Park, Kim, Kwak: Feature-map-level Online Adversarial Knowledge Distillation.
ICML 2020. arXiv:2002.01775. Peer k learns from peer k-1, and the first from the last: logits and
feature maps alike go round this ring.

    D_k tells maps of peer k (fake, 0) from those of its teacher k-1 (real, 1);
    peer k learns to make D_k call its own maps real.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from codistill.data.batch import Batch, Labels
from codistill.errors import InputError, require_not_negative, require_one_of, require_positive
from codistill.methods.adapters import MatchSize, MatchWidth
from codistill.methods.length import Length, constant_travel, share_of_epochs
from codistill.methods.losses import at_least_float32, ce_loss, kd_loss
from codistill.methods.method import Method, require_peers
from codistill.methods.minimize import MEASURE, minimize
from codistill.methods.optimizers import adam, adamw
from codistill.networks.families.initialise import initialise_convolutions
from codistill.networks.peers import Outputs, Peers

Alignment = Literal["adversarial", "l1", "l2", "none"]
_HIGHEST_LR = 1e-3  # Adam's usual one
_START = 0.1  # standard deviation of a discriminator's starting logits, at most about this


def _travel(value: float, paper: Length, run: Length) -> float:
    """A learning rate whose product with the number of steps stays, as far as Adam can take it.

    Below 2,346 steps the product is smaller: a discriminator whose weights move further in each
    step jumps from one side to the other.
    """
    return min(_HIGHEST_LR, constant_travel(value, paper, run))


class AFD(Method):
    """Each peer learns the predictions and the feature maps of the one before it in a ring.

    In a step the loss on logits moves the peers first. The feature maps are then computed again
    with the new weights. On these maps each discriminator moves, and after it the peer that has to
    fool it.

    A step also measures "dK_real" and "dK_fake": the accuracy of D_K in % on the teacher's maps and
    on peer K's own, before D_K moves. For a discriminator that knows nothing the two add up to 100.
    One that says the same of every map has 0 and 100.

    Args:
        peers: two or more networks.
        temperature: T of the divergences.
        kd: whether logits are distilled too.
        alignment: the loss on feature maps: "adversarial"; or the paper's rivals, which draw peer
            k's map directly to its teacher's, held fixed: "l1", the mean absolute difference, or
            "l2", the mean squared one; or "none".
        alignment_weight: weight of "l1" and "l2".
        adversarial_lr: learning rate of Adam, which moves the feature extractors. It is the same
            for a run of any length: so is that of the loss on logits, which moves them too.
        discriminator_lr: learning rate of Adam, which moves the discriminators. The default
            belongs to the 117,300 steps of 300 epochs. The command scales it to a run of n steps:
            2e-5 * 117,300 / n, but at most 1e-3. Learning rate x steps then stays the same, and
            so does the distance that Adam can move a weight.
        adversarial_weight_decay: weight decay of Adam, on both.
        decoupled_decay: whether that decay shrinks the weights directly, as AdamW does. If not,
            Adam adds it to the gradients, where it outweighs those of the adversarial losses.
        adversarial_milestones: epochs at which these learning rates are multiplied by 0.1. The
            default belongs to 300 epochs. The command scales it to E epochs: 75 * E / 300 and
            150 * E / 300.
        standardise: whether logits are standardised before they are softened.
    """

    scales = {"discriminator_lr": _travel, "adversarial_milestones": share_of_epochs}

    def __init__(
        self,
        peers: Peers,
        temperature: float = 3.0,
        kd: bool = True,
        alignment: Alignment = "adversarial",
        alignment_weight: float = 1.0,
        adversarial_lr: float = 2e-5,
        discriminator_lr: float = 2e-5,
        adversarial_weight_decay: float = 0.0,
        decoupled_decay: bool = True,
        adversarial_milestones: Sequence[int] = (75, 150),
        standardise: bool = False,
    ):
        require_peers(peers, "AFD teaches each peer by another")
        require_positive(
            temperature=temperature,
            adversarial_lr=adversarial_lr,
            discriminator_lr=discriminator_lr,
        )
        require_not_negative(
            alignment_weight=alignment_weight, adversarial_weight_decay=adversarial_weight_decay
        )
        if not all(isinstance(m, int) and m > 0 for m in adversarial_milestones):
            raise InputError(
                f"adversarial_milestones are {list(adversarial_milestones)}: give epochs, whole "
                "numbers above 0"
            )
        require_one_of("alignment", alignment, ("adversarial", "l1", "l2", "none"))
        super().__init__(peers)
        self.forwards = 2 if alignment == "adversarial" else 1
        if alignment != "adversarial":
            self.scales = {}  # the constants of the adversarial step are not used
        self.temperature = temperature
        self.standardise = standardise
        self.kd = kd
        self.alignment = alignment
        self.alignment_weight = alignment_weight
        self.adversarial_lr = adversarial_lr
        self.discriminator_lr = discriminator_lr
        self.adversarial_weight_decay = adversarial_weight_decay
        self.decoupled_decay = decoupled_decay
        self.adversarial_milestones = tuple(adversarial_milestones)
        last = [(d[-1], r[-1]) for d, r in zip(peers.channels, peers.reductions, strict=True)]
        ring = list(zip(last, [last[-1], *last[:-1]], strict=True))  # (peer k, its teacher)
        if alignment != "none":
            self.transfers = nn.ModuleList(_transfer(own, teacher) for own, teacher in ring)
        if alignment == "adversarial":
            self.discriminators = nn.ModuleList(
                _discriminator(min(own[0], teacher[0])) for own, teacher in ring
            )

    def losses(self, out: Outputs, labels: Labels, epoch: int) -> dict[str, Tensor]:
        z = out.logits
        terms = {"ce": ce_loss(z, labels)}
        if self.kd:
            terms["kd"] = kd_loss(z, z.detach().roll(1, dims=0), self.temperature, self.standardise)
        if self.alignment in ("l1", "l2"):
            power = 1 if self.alignment == "l1" else 2
            pairs = self._pairs(out.feature_maps, hold_teachers=True)
            distances = [(at_least_float32(own - t).abs() ** power).mean() for own, t in pairs]
            terms["align"] = self.alignment_weight * torch.stack(distances).sum()
        return terms

    def optimizers(self, make: Callable[..., Optimizer]) -> dict[str, Optimizer]:
        if self.alignment != "adversarial":
            return {"main": make(self.parameters())}
        adversarial = functools.partial(
            adamw if self.decoupled_decay else adam,
            weight_decay=self.adversarial_weight_decay,
        )
        extractors = [*self.peers.trunk.parameters(), *self.peers.branches.parameters()]
        return {
            "main": make(self.peers.parameters()),
            "discriminators": adversarial(
                [*self.discriminators.parameters(), *self.transfers.parameters()],
                lr=self.discriminator_lr,
            ),
            "extractors": adversarial(extractors, lr=self.adversarial_lr),
        }

    def lr_factor(self, optimizer: str, epoch: int, recipe: float) -> float:
        if optimizer == "main":
            return recipe
        return 0.1 ** sum(epoch >= milestone for milestone in self.adversarial_milestones)

    def remarks(self, epochs: int) -> Iterator[str]:
        milestones = self.adversarial_milestones
        if milestones and self.forwards > 1 and min(milestones) >= epochs:
            yield (
                f"method.adversarial_milestones {list(milestones)} lie beyond the {epochs} epochs: "
                "the adversarial learning rate stays high"
            )

    def training_step(
        self, batch: Batch, optimizers: dict[str, Optimizer], epoch: int
    ) -> dict[str, Tensor]:
        losses = super().training_step(batch, optimizers, epoch)
        if self.alignment != "adversarial":
            return losses
        maps = self.peers(batch.views).feature_maps

        # D_k learns to call the maps of its own peer 0 and those of the peer's teacher 1 ...
        own, teachers = zip(*self._pairs([x.detach() for x in maps]), strict=True)
        fake, real = self._scores(own), self._scores(teachers)
        d_loss = {"d": _distance(fake, goal=0) + _distance(real, goal=1)}
        minimize(d_loss, optimizers["discriminators"])

        # ... and peer k learns to make D_k call its maps 1.
        own, _ = zip(*self._pairs(maps, hold_teachers=True), strict=True)
        g_loss = {"g": _distance(self._scores(own), goal=1)}
        minimize(g_loss, optimizers["extractors"])
        return losses | d_loss | g_loss | _told_right(real, fake)

    def _pairs(
        self, maps: Sequence[Tensor], hold_teachers: bool = False
    ) -> list[tuple[Tensor, Tensor]]:
        """The map of each peer and that of its teacher, brought to one shape."""
        teachers = [maps[-1], *maps[:-1]]
        if hold_teachers:
            teachers = [x.detach() for x in teachers]
        pairs = zip(maps, teachers, strict=True)
        return [tuple(t(pair)) for t, pair in zip(self.transfers, pairs, strict=True)]

    def _scores(self, maps: Sequence[Tensor]) -> Float[Tensor, "K B"]:
        """D_k(maps[k]), from 0, fake, to 1, real."""
        pairs = zip(self.discriminators, maps, strict=True)
        return at_least_float32(torch.stack([D(x).squeeze(1) for D, x in pairs]))


def _distance(scores: Float[Tensor, "K B"], goal: int) -> Float[Tensor, ""]:
    """The squared distance of the scores from `goal`, mean over images, sum over k."""
    return (scores - goal).square().mean(dim=1).sum()


def _told_right(real: Float[Tensor, "K B"], fake: Float[Tensor, "K B"]) -> dict[str, Tensor]:
    """The accuracy of each discriminator in %, as measurements."""
    right = {"real": real > 0.5, "fake": fake < 0.5}
    shares = {name: 100 * told.to(real.dtype).mean(dim=1) for name, told in right.items()}
    return {
        f"{MEASURE}d{k}_{name}": share[k]
        for k in range(len(real))
        for name, share in shares.items()
    }


def _transfer(own: tuple[int, int], teacher: tuple[int, int]) -> nn.Module:
    """T_k: brings two maps, given as (channels, reduction), to the smaller size and width.

    It changes nothing where they agree. It is trained with the discriminators.
    """
    channels, reductions = zip(own, teacher, strict=True)
    return nn.Sequential(MatchSize(channels, reductions), MatchWidth(channels))


def _discriminator(d: int) -> nn.Module:
    """Gives each map (B, D, H, W) a score in (0, 1), as (B, 1), which starts near 0.5.

    Batch normalisation brings the input of the last convolution to size 1. With weights of size
    `_START` / sqrt(2 D), the sum over 2 D channels has size `_START`, however wide the map is. An
    initialisation by fan-out would give the sum the size sqrt(2 * 2 D): the sigmoid would be flat
    before anything is learned.
    """
    last = nn.Conv2d(2 * d, 1, kernel_size=1)
    discriminator = nn.Sequential(
        nn.Conv2d(d, 2 * d, kernel_size=3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(2 * d),
        nn.LeakyReLU(0.2),
        last,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Sigmoid(),
    )
    initialise_convolutions(discriminator)
    nn.init.normal_(last.weight, std=_START * (2 * d) ** -0.5)
    nn.init.zeros_(last.get_parameter("bias"))
    return discriminator
