"""Predictions of every classifier for every image, in a few numbers each."""

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
from codistill.training.device import device_of, random_numbers_kept

EvalSet = EvalBatches | StreamedEvalBatches
"""The batches that a run evaluates on."""


@dataclass(frozen=True)
class Guesses:
    """Predictions of one classifier for N images.

    Attributes:
        guess: class with the highest probability, (N,).
        confidence: probability of the guess, 0 to 1, (N,).
        nll: -log of the label's probability, in nats, (N,).
        brier: sum over classes of (probability - 1 for the label, else 0)^2, 0 to 2, (N,).
    """

    guess: Int64[Tensor, "N"]
    confidence: Float[Tensor, "N"]
    nll: Float[Tensor, "N"]
    brier: Float[Tensor, "N"]


@dataclass(frozen=True)
class Predictions:
    """Predictions of all classifiers of a method for N images; on the CPU.

    Attributes:
        index: place of each image in its split, (N,). Broken images are left out.
        labels: labels, 0 to C - 1, (N,).
        of: guesses of each classifier, by name: the peers, then "ensemble" and the method's own.
    """

    index: Int64[Tensor, "N"]
    labels: Int64[Tensor, "N"]
    of: dict[str, Guesses]

    def right(self, classifier: str) -> Tensor:
        """Whether a classifier is right about each image, (N,) bool."""
        return self.of[classifier].guess == self.labels


def predict(method: Method, batches: EvalSet) -> Predictions:
    """Predictions of every classifier for every image, in eval mode, batch by batch."""
    found: dict[str, list[Guesses]] = {}
    labels = []
    with eval_mode(method), torch.inference_mode(), random_numbers_kept(device_of(method)):
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
    """The guesses of all batches on the CPU: one copy per number, not one per batch."""
    return Guesses(
        *(
            torch.cat([getattr(part, field.name) for part in parts]).cpu()
            for field in dataclasses.fields(Guesses)
        )
    )


@dataclass(frozen=True)
class Missing:
    """Takes the place of a part of an `Analysis` that could not be measured.

    Attributes:
        reason: one line to show, such as "weights.safetensors is not in runs/first".
    """

    reason: str
