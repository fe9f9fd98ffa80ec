"""PCL: a classifier of all peers' features and the peers' moving averages teach every peer.

Wu, Gong: Peer Collaborative Learning for Online Knowledge Distillation.
AAAI 2021. arXiv:2006.04147. The paper keeps the first moving average ("mean teacher").
"""

import copy
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from codistill.data.batch import Batch, Labels
from codistill.errors import (
    InputError,
    require_fraction,
    require_not_negative,
    require_positive,
)
from codistill.methods.length import share_of_epochs, share_of_steps
from codistill.methods.losses import ce_loss, kd_loss, ramp_up_remarks, sigmoid_ramp_up
from codistill.methods.method import Method, require_peers
from codistill.methods.modes import Frozen
from codistill.networks.peers import Kept, Outputs, Peers


class PCL(Method):
    """Each peer sees its own view; a fused classifier and the others' mean teachers teach it.

    A mean teacher is the moving average of a whole network, the statistics of its batch
    normalisation included, and runs in eval mode.

    Args:
        peers: two or more networks.
        temperature: T of the divergences.
        ramp_up: epochs until distillation has its full weight; 0 gives it from the start. The
            usual 80 belong to 300 epochs; the command scales them to the run.
        decay: the largest share of itself that a moving average keeps in a step; at step t, from
            0, it keeps min(1 - 1 / (t + 1), decay). The usual 0.999 belongs to the 117,300 steps of
            300 epochs; the command scales it to the run.
        standardise: whether logits are standardised before they are softened.
    """

    step: Tensor

    scales = {"ramp_up": share_of_epochs, "decay": share_of_steps}

    def __init__(
        self,
        peers: Peers,
        temperature: float = 3.0,
        ramp_up: int = 80,
        decay: float = 0.999,
        standardise: bool = False,
    ):
        require_peers(peers, "PCL teaches each peer by the others")
        require_positive(temperature=temperature)
        require_not_negative(ramp_up=ramp_up)
        require_fraction(decay=decay)
        super().__init__(peers)
        self.views = len(peers)
        self.fused = nn.Linear(sum(d[-1] for d in peers.channels), peers.num_classes)
        self.mean_teachers = Frozen(copy.deepcopy(peers))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.temperature = temperature
        self.standardise = standardise
        self.ramp_up = ramp_up
        self.decay = decay
        self._updated = False

    def forward(self, views: Sequence[Float[Tensor, "B 3 H W"]]) -> Outputs:
        out = self.peers(views)
        out.extra["fused"] = self.fused(torch.cat(out.embeddings, dim=1))
        means = self.mean_teachers(views).logits
        out.extra |= {f"mean_teacher{k}": z_k for k, z_k in enumerate(means)}
        return out

    def remarks(self, epochs: int) -> Iterator[str]:
        return ramp_up_remarks(self.ramp_up, epochs)

    def losses(self, out: Outputs, labels: Labels, epoch: int) -> dict[str, Tensor]:
        self._require_updates(epoch)
        z, z_f, T, K = out.logits, out.extra["fused"], self.temperature, len(self.peers)
        w = sigmoid_ramp_up(epoch, self.ramp_up)
        means = torch.stack([out.extra[f"mean_teacher{k}"] for k in range(K)])
        pairs = kd_loss(z[:, None], means.detach()[None], T, self.standardise)  # (k, j), all
        own = kd_loss(z, means.detach(), T, self.standardise)  # (k, k)
        return {
            "ce": ce_loss(z, labels) + ce_loss(z_f, labels),
            "fkd": w * kd_loss(z, z_f.detach(), T, self.standardise),
            "mkd": w * (pairs - own) / (K - 1),
        }

    def training_step(
        self, batch: Batch, optimizers: dict[str, Optimizer], epoch: int
    ) -> dict[str, Tensor]:
        self._updated = True  # they will be
        losses = super().training_step(batch, optimizers, epoch)
        self.update_mean_teachers()
        return losses

    @torch.no_grad()
    def update_mean_teachers(self) -> None:
        """Moves every mean teacher towards its peer, weights and buffers; call it after a step."""
        keep = (1 - 1 / (self.step + 1)).clamp(max=self.decay)
        values = self.peers.state_dict()
        means = self.mean_teachers.module.state_dict()
        moving = [name for name, value in values.items() if value.is_floating_point()]
        averages, shares = [means[name] for name in moving], [values[name] for name in moving]
        # Lists: on a GPU each line is one launch, not one for each of hundreds of tensors.
        torch._foreach_mul_(averages, keep)
        torch._foreach_add_(averages, torch._foreach_mul(shares, 1 - keep))
        counts = [name for name in values if name not in {*moving}]  # of batches
        if counts:
            torch._foreach_copy_(
                [means[name] for name in counts], [values[name] for name in counts]
            )
        self.step += 1

    def _require_updates(self, epoch: int) -> None:
        """Raises InputError if no mean teacher was updated in the first epoch."""
        if epoch > 0 and not self._updated:
            self._updated = bool(
                self.step > 0
            )  # waits for the device until it is true, then never again
            if not self._updated:
                raise InputError(
                    "PCL's mean teachers were never updated: take method.training_step(batch, "
                    "optimizers, epoch), or call method.update_mean_teachers() after every step"
                )

    def students(self) -> dict[str, Kept]:
        """The mean teachers, the first of which the paper keeps, and the peers."""
        means: Peers = self.mean_teachers.module  # type: ignore[assignment]
        averaged = {f"mean_teacher{k}": Kept(means, k) for k in range(len(self.peers))}
        return averaged | super().students()
