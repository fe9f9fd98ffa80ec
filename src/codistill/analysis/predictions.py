"""What every classifier says of every image, in a few numbers for each."""

import dataclasses
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from codistill.data import EvalBatches, StreamedEvalBatches
from codistill.errors import InputError
from codistill.methods.method import Method
from codistill.methods.modes import eval_mode

EvalSet = EvalBatches | StreamedEvalBatches
"""What a run evaluates on."""


@dataclass(frozen=True)
class Guesses:
    """What one classifier says of N images.

    Attributes:
        guess: the class with the highest probability, (N,).
        confidence: that probability, 0 to 1, (N,).
        nll: -log of the label's probability, in nats, (N,).
        brier: sum over classes of (probability - 1 for the label, else 0)^2, 0 to 2, (N,).
    """

    guess: Int64[Tensor, "N"]
    confidence: Float[Tensor, "N"]
    nll: Float[Tensor, "N"]
    brier: Float[Tensor, "N"]


@dataclass(frozen=True)
class Predictions:
    """What all classifiers of a method say of N images; on the CPU.

    Attributes:
        index: the place of each image in its split, (N,). Broken images are left out.
        labels: 0 to C - 1, (N,).
        of: for each classifier, by name: the peers, then "ensemble" and the method's own.
    """

    index: Int64[Tensor, "N"]
    labels: Int64[Tensor, "N"]
    of: dict[str, Guesses]

    def right(self, classifier: str) -> Tensor:
        """Which images a classifier is right about, (N,) bool."""
        return self.of[classifier].guess == self.labels


def predict(method: Method, batches: EvalSet) -> Predictions:
    """What every classifier says of every image, in eval mode, batch by batch."""
    found: dict[str, list[Guesses]] = {}
    labels = []
    with eval_mode(method), torch.inference_mode(), torch.random.fork_rng(devices=[]):
        for batch in batches:
            for name, logits in method(batch.views).classifiers.items():
                found.setdefault(name, []).append(_guess(logits.float(), batch.labels))
            labels.append(batch.labels)
    if not labels:
        raise InputError("there is not one image to predict")
    return Predictions(
        batches.unbroken(),
        torch.cat(labels).cpu(),
        {name: _join(parts) for name, parts in found.items()},
    )


def _guess(logits: Float[Tensor, "B C"], labels: Int64[Tensor, "B"]) -> Guesses:
    p = logits.softmax(dim=1)
    confidence, guess = p.max(dim=1)
    nll = F.cross_entropy(logits, labels, reduction="none")
    of_label = p.gather(1, labels[:, None]).squeeze(1)
    brier = p.square().sum(dim=1) - 2 * of_label + 1
    return Guesses(guess, confidence, nll, brier)


def _join(parts: list[Guesses]) -> Guesses:
    """Those of all batches, on the CPU: one copy for each number instead of one for each batch."""
    return Guesses(
        *(
            torch.cat([getattr(part, field.name) for part in parts]).cpu()
            for field in dataclasses.fields(Guesses)
        )
    )


@dataclass(frozen=True)
class Missing:
    """Stands in the place of a part of an `Analysis` that there is none of.

    Attributes:
        reason: one line that can be shown, such as "weights.safetensors is not in runs/first".
    """

    reason: str
