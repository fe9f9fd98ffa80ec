"""KDCL: each peer sees its own view of an image; all learn from one ensemble of their logits.

Guo, Wang, Wu, Yu, Liang, Hu, Luo: Online Knowledge Distillation via Collaborative Learning.
CVPR 2020. The four ensembles are its section 3.2.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from codistill.data.batch import Batch, Labels
from codistill.errors import InputError, require_not_negative, require_one_of, require_positive
from codistill.methods.losses import (
    as_distributions,
    at_least_float32,
    ce_loss,
    full_precision,
    kd_loss,
)
from codistill.methods.method import Method, require_peers
from codistill.methods.modes import eval_mode
from codistill.networks.peers import Outputs, Peers

Ensemble = Literal["naive", "linear", "minlogit", "general"]


class KDCL(Method):
    """Every peer learns from labels and from an ensemble that is better than each of them.

    Args:
        peers: two or more networks.
        target: the ensemble that teaches, held fixed.
            "naive": for each image, the peer whose cross-entropy is lowest;
            "linear": for each image, the convex combination whose cross-entropy is lowest;
            "minlogit": for each image and class, the smallest logit, those of the true class
            being zero (for labels that are distributions: the logits' mean under them);
            "general": the affine combination with the smallest expected error on images that were
            held out, measured before each epoch.
        temperature: T of the divergences.
        kd_weight: weight of the divergences.
        standardise: whether logits are standardised before they are softened.
    """

    weights: Tensor

    def __init__(
        self,
        peers: Peers,
        target: Ensemble = "minlogit",
        temperature: float = 2.0,
        kd_weight: float = 1.0,
        standardise: bool = False,
    ):
        require_peers(peers, "KDCL teaches peers by their ensemble")
        require_one_of("target", target, ("naive", "linear", "minlogit", "general"))
        require_positive(temperature=temperature)
        require_not_negative(kd_weight=kd_weight)
        super().__init__(peers)
        self.views = len(peers)
        self.needs_held_out = target == "general"
        self.target = target
        self.temperature = temperature
        self.standardise = standardise
        self.kd_weight = kd_weight
        if target == "general":
            self.register_buffer("weights", torch.full((len(peers),), 1 / len(peers)))

    def losses(self, out: Outputs, labels: Labels, epoch: int) -> dict[str, Tensor]:
        z = out.logits
        with full_precision(z):
            teacher = self._teacher(at_least_float32(z.detach()), labels)
        kd = self.kd_weight * kd_loss(z, teacher, self.temperature, self.standardise)
        return {"ce": ce_loss(z, labels), "kd": kd}

    def begin_epoch(self, epoch: int, held_out: Iterable[Batch] | None) -> None:
        if self.target == "general" and held_out is not None:
            self.weights.copy_(general_weights(error_correlation(self, held_out)))

    def _teacher(self, z: Float[Tensor, "K B C"], labels: Labels) -> Tensor:
        if self.target == "naive":
            best = _cross_entropies(z, labels).argmin(dim=0)  # (B,)
            return z[best, torch.arange(len(best), device=z.device)]
        if self.target == "linear":
            return torch.einsum("bk,kbc->bc", linear_weights(z, labels), z)
        if self.target == "minlogit":
            true = (z * as_distributions(labels, z)).sum(dim=-1, keepdim=True)  # (K, B, 1)
            return (z - true).amin(dim=0)
        return torch.einsum("k,kbc->bc", self.weights.to(z.dtype), z)


def linear_weights(
    z: Float[Tensor, "K B C"], labels: Labels, steps: int = 30
) -> Float[Tensor, "B K"]:
    """For each image, the convex combination of logits whose cross-entropy is lowest.

    Exponentiated gradient descent finds it and stays on the simplex. Each image has a step size of
    its own: it doubles if the loss fell; else a quarter of it is tried from the same place.
    Kivinen, Warmuth: Exponentiated Gradient versus Gradient Descent for Linear Predictors. 1997.
    """
    K, B, C = z.shape
    true = as_distributions(labels, z)

    def cross_entropy(log_a: Tensor) -> tuple[Tensor, Tensor]:
        mixed = torch.einsum("bk,kbc->bc", log_a.softmax(dim=1), z).log_softmax(dim=1)
        gradient = torch.einsum("bc,kbc->bk", mixed.exp() - true, z)  # by the weights
        return -(mixed * true).sum(dim=1, keepdim=True), gradient

    log_a, rate = z.new_zeros(B, K), z.new_full((B, 1), 0.1)
    loss, gradient = cross_entropy(log_a)
    for _ in range(steps):
        trial = log_a - rate * gradient
        trial_loss, trial_gradient = cross_entropy(trial)
        fell = trial_loss <= loss
        log_a = torch.where(fell, trial, log_a)
        gradient = torch.where(fell, trial_gradient, gradient)
        loss = torch.where(fell, trial_loss, loss)
        rate = torch.where(fell, 2 * rate, rate / 4)
    return log_a.softmax(dim=1)


@torch.no_grad()
def error_correlation(method: Method, batches: Iterable[Batch]) -> Float[Tensor, "K K"]:
    """C_ij: the mean over images of <p_i - y, p_j - y>, p predictions and y the one-hot label."""
    K = len(method.peers)
    sums, n = torch.zeros(K, K), 0
    with eval_mode(method):
        for batch in batches:
            p = at_least_float32(method.peers(batch.views).logits).softmax(dim=-1)  # (K, B, C)
            e = p - as_distributions(batch.labels, p)
            sums = sums.to(e) + torch.einsum("ibc,jbc->ij", e, e)
            n += len(batch.labels)
    if not n:
        raise InputError(
            "there is not one held-out image to measure the peers on: a generator can be gone "
            "through only once, so give a list, a DataLoader or EvalBatches"
        )
    return sums / n


def general_weights(correlation: Float[Tensor, "K K"]) -> Float[Tensor, "K"]:
    """The weights, of sum 1, that minimise `w^T C w`: `C^-1 1 / (1^T C^-1 1)`."""
    K, dtype, device = len(correlation), correlation.dtype, correlation.device
    correlation = correlation.cpu().double()  # not every device has float64 and a solver
    tiny = 1e-6 * correlation.trace() / K  # equal peers make C singular
    eye = torch.eye(K, dtype=correlation.dtype)
    w = torch.linalg.solve(correlation + tiny * eye, correlation.new_ones(K))
    return (w / w.sum()).to(device, dtype)


def _cross_entropies(z: Float[Tensor, "K B C"], labels: Labels) -> Float[Tensor, "K B"]:
    return -(z.log_softmax(dim=-1) * as_distributions(labels, z)).sum(dim=-1)
