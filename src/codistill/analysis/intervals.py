"""Confidence intervals of accuracies."""

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist, mean, stdev

from codistill.analysis.paired import LEVEL
from codistill.importing import optional


def interval_of_mean(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % confidence interval of the mean of several runs, by Student's t; None for one value."""
    if len(values) < 2:
        return None
    t = optional("scipy.stats", "comparing runs").t.ppf(0.5 + LEVEL / 2, len(values) - 1)
    half = float(t) * stdev(values) / sqrt(len(values))
    return mean(values) - half, mean(values) + half


def interval_of_share(percent: float, images: int) -> tuple[float, float]:
    """95 % confidence interval of an accuracy, over new draws of the test images.

    Wilson's score interval (Wilson 1927). It does not cover new trainings.

    Args:
        percent: accuracy in %.
        images: number of test images, 1 or more.
    """
    z2 = NormalDist().inv_cdf(0.5 + LEVEL / 2) ** 2
    share = percent / 100
    centre = share + z2 / (2 * images)
    half = sqrt(z2 * (share * (1 - share) / images + z2 / (4 * images**2)))
    scale = 100 / (1 + z2 / images)
    return max(0.0, (centre - half) * scale), min(100.0, (centre + half) * scale)
