"""Loss terms and ramps that several methods share.

Every term is averaged over the batch and summed over the classifiers that lead its shape. Terms
are computed in float32 at least, whatever precision the network ran in.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from codistill.data.batch import Labels


def ce_loss(logits: Float[Tensor, "*K B C"], labels: Labels) -> Float[Tensor, ""]:
    """Cross-entropy of one or more classifiers."""
    K = logits.shape[:-2].numel()
    labels = labels.repeat(K, *[1] * (labels.ndim - 1))
    return K * F.cross_entropy(at_least_float32(logits).flatten(0, -2), labels)


def kd_loss(
    student: Float[Tensor, "*#K B C"],
    teacher: Float[Tensor, "*#K B C"],
    temperature: float,
    standardise: bool = False,
) -> Float[Tensor, ""]:
    """T^2 KL(teacher || student) of predictions softened by the temperature T.

    Gradients reach both sides: write `teacher.detach()` where the paper holds it fixed.
    Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network. arXiv:1503.02531.

    Args:
        student: logits.
        teacher: logits.
        temperature: T.
        standardise: whether the logits are standardised first. T then counts standard deviations,
            and the student need not match the size of the teacher's logits.
    """
    student, teacher = at_least_float32(student), at_least_float32(teacher)
    if standardise:
        student, teacher = standardised(student), standardised(teacher)
    log_p = F.log_softmax(teacher / temperature, dim=-1)
    log_q = F.log_softmax(student / temperature, dim=-1)
    kl = (log_p.exp() * (log_p - log_q)).sum(dim=-1)  # (*K, B)
    return temperature**2 * kl.mean(dim=-1).sum()


def standardised(z: Float[Tensor, "*K B C"]) -> Float[Tensor, "*K B C"]:
    """Every row of logits minus its mean, over its standard deviation.

    The deviation is the unbiased one, plus 1e-7, as in the authors' code. Sun, Ren, Li, Wang, Cao:
    Logit Standardization in Knowledge Distillation. CVPR 2024. arXiv:2403.01427.
    """
    return (z - z.mean(dim=-1, keepdim=True)) / (z.std(dim=-1, keepdim=True) + 1e-7)


def as_distributions(labels: Labels, z: Float[Tensor, "*K B C"]) -> Float[Tensor, "B C"]:
    """Labels as rows of sum 1: indices become one-hot, rows weighed by class are divided."""
    if labels.ndim == 1:
        return z.new_zeros(len(labels), z.shape[-1]).scatter_(1, labels[:, None], 1.0)
    return (labels / labels.sum(dim=1, keepdim=True).clamp(min=1e-12)).to(z.dtype)


def sigmoid_ramp_up(epoch: int, length: int) -> float:
    """From e^-5 at epoch 0 up to 1 at epoch `length`, and 1 from there on.

    Laine, Aila: Temporal Ensembling for Semi-Supervised Learning. arXiv:1610.02242.
    """
    remaining = max(0.0, 1.0 - epoch / length) if length else 0.0
    return math.exp(-5.0 * remaining**2)


def ramp_up_remarks(length: int, epochs: int) -> Iterator[str]:
    """A warning if the training ends before its ramp-up; see `Method.remarks`."""
    weight, usual = sigmoid_ramp_up(epochs - 1, length), max(1, round(epochs * 80 / 300))
    if weight < 0.99 and length > usual:
        yield (
            f"method.ramp_up is {length} epochs, and the run has {epochs}: distillation reaches "
            f"{weight:.0%} of its weight. The usual 80 of 300 would be --method.ramp_up {usual}"
        )


def full_precision(x: Tensor) -> AbstractContextManager[None]:
    """Switches autocast off, which lowers products and sums of products to half precision.

    It is for the arithmetic of a loss, not of a network; `at_least_float32` is for the operands.
    """
    return torch.autocast(x.device.type, enabled=False)


def at_least_float32(x: Tensor) -> Tensor:
    """`x`, as float32 if it is of half precision."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
