"""How good predictions are."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def batch_metrics(logits: Float[Tensor, "B C"], labels: Int[Tensor, "B"]) -> Float[Tensor, "3"]:
    """Sums over a batch: right at first guess, right among five guesses, -log p of the label.

    With fewer than five classes, "five guesses" are as many as there are classes.
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
