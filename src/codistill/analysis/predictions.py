"""What every classifier says of every image, in a few numbers for each."""

from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor

from codistill.data import EvalBatches, StreamedEvalBatches
from codistill.method import Method

Batches = EvalBatches | StreamedEvalBatches
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


def predict(method: Method, batches: Batches) -> Predictions:
    """What every classifier says of every image, in eval mode and float32, batch by batch."""
    raise NotImplementedError
