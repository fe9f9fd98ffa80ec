"""Codistillation: peers learn from copies of each other that are some epochs old.

Anil, Pereyra, Passos, Ormandi, Dahl, Hinton: Large Scale Distributed Neural Network Training
through Online Distillation. ICLR 2018. arXiv:1804.03235. Copies may be old, so that machines which
train one peer each need to exchange weights only rarely: the variant that scales out.
"""

import copy
import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.optim import Optimizer

from codistill.data.batch import Batch, Labels
from codistill.errors import InputError, require_not_negative, require_positive
from codistill.methods.exchange import Exchange
from codistill.methods.losses import at_least_float32, ce_loss, kd_loss
from codistill.methods.method import Method, require_peers
from codistill.methods.modes import Frozen
from codistill.networks.peers import Outputs, Peers


class Codistillation(Method):
    """Each peer learns from labels and from the mean prediction of the others' stale copies.

    The copies predict in eval mode and are renewed before an epoch. In a loop of your own, call
    `begin_epoch(epoch, None)` yourself.

    With a folder, each of several jobs trains one peer, and the copies are those that other jobs
    left in the folder; see `codistill.methods.exchange`. Without any copy it learns from labels.

    Args:
        peers: two or more independent networks; one with a folder.
        temperature: T of the divergences.
        burn_in: epochs in which the peers learn from labels alone. With a folder at least 1, and
            nothing is published before its end.
        refresh_every: the age in epochs at which the copies are renewed. Not with a folder.
        kd_weight: weight of the divergences.
        standardise: whether logits are standardised before they are softened.
        folder: absolute path of the folder that the jobs share. Default: one job trains all peers.
        job: the name of this job, of letters, digits, - and _; no other job has it.
        every: steps of this job between two renewals of its copies; it publishes its own network
            as often. Parts of `accumulate` count as steps.
        oldest: age in seconds from which a copy teaches no more. Default: never.
    """

    renewed: Tensor

    def __init__(
        self,
        peers: Peers,
        temperature: float = 1.0,
        burn_in: int = 1,
        refresh_every: int = 1,
        kd_weight: float = 1.0,
        standardise: bool = False,
        folder: str | None = None,
        job: str | None = None,
        every: int = 50,
        oldest: float | None = None,
    ):
        if folder is None:
            require_peers(peers, "codistillation teaches peers by the others")
        if (folder is None) != (job is None):
            raise InputError(
                "codistillation across jobs needs both: a folder that all share, and the name of "
                "this job"
            )
        if oldest is not None and folder is None:
            raise InputError("oldest is for copies of other jobs: give a folder too")
        if folder is not None and burn_in < 1:
            raise InputError(
                f"burn_in is {burn_in}, and other jobs would learn from a network that knows "
                "nothing: give at least 1"
            )
        if peers.shared:
            raise InputError(
                "codistillation is for networks that are trained apart and exchange copies now and "
                f"then, but these share {peers.shared} stages: give shared=0, or take dml"
            )
        require_positive(temperature=temperature, refresh_every=refresh_every)
        require_not_negative(burn_in=burn_in, kd_weight=kd_weight)
        super().__init__(peers)
        self.exchange: Exchange | None = None
        if folder is not None and job is not None:
            self.exchange = Exchange(peers, folder, job, every, oldest)
        else:
            self.copies = Frozen(copy.deepcopy(peers))
            self.register_buffer("renewed", torch.zeros((), dtype=torch.bool))
            self._renewed = False
        self.temperature = temperature
        self.standardise = standardise
        self.burn_in = burn_in
        self.refresh_every = refresh_every
        self.kd_weight = kd_weight

    def remarks(self, epochs: int) -> Iterator[str]:
        if self.burn_in >= epochs:
            yield (
                f"method.burn_in is {self.burn_in}, and the run has {epochs} epochs: the peers "
                "never learn from each other"
            )

    def begin_epoch(self, epoch: int, held_out: Iterable[Batch] | None) -> None:
        if self.exchange is not None:
            return
        since = epoch - self.burn_in
        if since >= 0 and (since % self.refresh_every == 0 or not self.renewed):
            self.copies.module.load_state_dict(self.peers.state_dict())
            self.renewed.fill_(True)

    def losses(self, out: Outputs, labels: Labels, epoch: int) -> dict[str, Tensor]:
        z, T = out.logits, self.temperature
        losses = {"ce": ce_loss(z, labels), "kd": at_least_float32(z).new_zeros(())}
        if self.exchange is not None:
            losses["measure/copies"] = losses["kd"] + len(self.exchange.copies)
            losses["measure/steps_behind"] = losses["kd"] + self.exchange.steps_behind()
        views = [stages[0] for stages in out.stages]
        log_mean = self._log_mean(views, epoch)
        if log_mean is not None:
            losses["kd"] = self.kd_weight * kd_loss(z, T * log_mean, T, self.standardise)
        return losses

    def training_step(
        self, batch: Batch, optimizers: dict[str, Optimizer], epoch: int
    ) -> dict[str, Tensor]:
        if self.exchange is not None:
            height, width = batch.views[0].shape[-2:]
            self.exchange.begin_step(epoch, (height, width), teaching=epoch >= self.burn_in)
        return super().training_step(batch, optimizers, epoch)

    def _log_mean(self, views: list[Tensor], epoch: int) -> Tensor | None:
        """The logarithm of what teaches each peer, (K, B, C); None if nothing does."""
        T, K = self.temperature, len(self.peers)
        if epoch < self.burn_in:
            return None
        if self.exchange is not None:
            return self.exchange.log_mean(views[0], T)[None] if self.exchange.copies else None
        self._require_renewal(epoch)
        stale = at_least_float32(self.copies(views).logits) / T
        itself = torch.eye(K, dtype=torch.bool, device=stale.device)[..., None, None]
        log_p = stale.log_softmax(dim=-1)[None].masked_fill(itself, -math.inf)  # (K, K, B, C)
        return log_p.logsumexp(dim=1) - math.log(K - 1)  # (K, B, C)

    def _require_renewal(self, epoch: int) -> None:
        """Raises InputError if the copies were never renewed although they should teach by now."""
        if epoch > 0 and not self._renewed:
            self._renewed = bool(
                self.renewed
            )  # waits for the device until it is true, then never again
            if not self._renewed:
                raise InputError(
                    "codistillation's copies were never renewed: call method.begin_epoch(epoch, "
                    "None) before every epoch"
                )
