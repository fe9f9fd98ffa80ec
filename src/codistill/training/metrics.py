"""Accuracy and loss of predictions, and how far apart those of peers are."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def batch_metrics(logits: Float[Tensor, "B C"], labels: Int[Tensor, "B"]) -> Float[Tensor, "3"]:
    """Sums over a batch: the first guess is right, one of five is, -log p of the label.

    With fewer than five classes, there are as many guesses as classes.
    """
    logits = logits.float()
    guesses = logits.topk(min(5, logits.shape[1]), dim=1).indices  # (B, 5)
    right = guesses == labels[:, None]
    nll = F.cross_entropy(logits, labels, reduction="sum")
    return torch.stack([right[:, 0].sum(), right.sum(), nll])


def mean_metrics(sums: Iterable[Tensor], n: int) -> dict[str, float]:
    """Metrics of n images, from the sums of their batches: top1 and top5 in %, nll in nats."""
    top1, top5, nll = (torch.stack(list(sums)).cpu().double().sum(dim=0) / n).tolist()
    return {"top1": 100 * top1, "top5": 100 * top5, "nll": nll}


def batch_differences(logits: Float[Tensor, "K B C"]) -> Float[Tensor, "2 K K"]:
    """Sums over a batch for peers i (row) and j (column).

    The first matrix is KL(p_i || p_j) in nats at T = 1, the second the number of images for which i
    and j guess differently.
    """
    log_p = logits.float().log_softmax(dim=2)
    p, guesses = log_p.exp(), log_p.argmax(dim=2)
    kl = [(p_i * (log_p_i - log_p)).sum(dim=(1, 2)) for p_i, log_p_i in zip(p, log_p, strict=True)]
    differ = (guesses[:, None] != guesses).sum(dim=2)  # (K, K)
    return torch.stack([torch.stack(kl), differ])


def mean_differences(sums: Iterable[Tensor], n: int) -> dict[str, float]:
    """Differences of peers i and j for n images, from the sums of their batches.

    They are "kl/peerI/peerJ" in nats, and for i below j "disagreement/peerI/peerJ" in % of images.
    """
    kl, differ = (torch.stack(list(sums)).cpu().double().sum(dim=0) / n).tolist()
    peers = range(len(kl))
    # Rounding can leave equal predictions a hair below 0; NaN has to stay NaN.
    flows = {f"kl/peer{i}/peer{j}": max(kl[i][j], 0.0) for i in peers for j in peers if i != j}
    return flows | {
        f"disagreement/peer{i}/peer{j}": 100 * differ[i][j] for i in peers for j in peers if i < j
    }
