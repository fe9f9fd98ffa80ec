"""Calibration: whether a classifier is as often right as it is confident."""

from dataclasses import dataclass

import torch

from codistill.analysis.predictions import Predictions
from codistill.errors import require_positive

BINS = 15  # as Guo et al. 2017


@dataclass(frozen=True)
class Bin:
    """The images for which a classifier has about the same confidence.

    Attributes:
        low, high: limits of the confidence: above `low`, up to `high`; the first bin holds 0 too.
        count: number of images.
        confidence: mean confidence, 0 to 1; None without images.
        accuracy: share of images that it is right about, 0 to 1; None without images.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """A reliability diagram and its summary.

    Attributes:
        bins: bins of equal width, from 0 to 1.
        ece: expected calibration error, 0 to 1: mean of |accuracy - confidence| over bins, weighted
            with their images (Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural
            Networks, ICML 2017, equation 3).
        overconfidence: mean confidence minus accuracy, -1 to 1.
        nll: mean -log p of the label, in nats.
        brier: mean over images of the sum over classes of squared errors, 0 to 2 (Brier 1950).
    """

    bins: tuple[Bin, ...]
    ece: float
    overconfidence: float
    nll: float
    brier: float


def calibration(predictions: Predictions, classifier: str, bins: int = BINS) -> Calibration:
    """The calibration of one classifier."""
    require_positive(bins=bins)
    guesses = predictions.of[classifier]
    confidence = guesses.confidence.double()
    right = predictions.right(classifier).double()
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
    place = torch.bucketize(confidence, edges[1:-1])  # in bin b: edge b < confidence <= edge b + 1
    counts = torch.bincount(place, minlength=bins)
    sums = [torch.bincount(place, weights, minlength=bins) for weights in (confidence, right)]
    gaps = (sums[1] - sums[0]).abs()  # count * |accuracy - confidence|
    n = len(confidence)
    return Calibration(
        bins=tuple(
            Bin(low, high, count, c / count if count else None, r / count if count else None)
            for low, high, count, c, r in zip(
                edges[:-1].tolist(),
                edges[1:].tolist(),
                counts.tolist(),
                *(s.tolist() for s in sums),
                strict=True,
            )
        ),
        ece=float(gaps.sum()) / n,
        overconfidence=float(confidence.mean() - right.mean()),
        nll=float(guesses.nll.double().mean()),
        brier=float(guesses.brier.double().mean()),
    )
