"""Statistics of paired differences: the same seed with and without a method."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, lgamma, log
from statistics import mean, stdev

from codistill.importing import optional

LEVEL = 0.95
SIGNIFICANT = 0.05
_EQUAL = 1e-9
"""Differences of accuracies in % that vary by less are equal: the rest is rounding."""


@dataclass(frozen=True)
class Paired:
    """Statistics of n differences, each between two runs of one seed.

    Attributes:
        differences: one difference for each pair, such as percentage points.
        mean: mean of the differences.
        sd: standard deviation of the differences; None for one.
        interval: 95 % confidence interval of the mean, by Student's t; None for one difference and
            for equal ones.
        effect: Hedges' g_z: mean / sd (Cohen's d_z) without its bias in small samples. None if
            there is no interval, and for two differences, for which it is not defined.
        p: p value of the paired t test that the true mean is 0, two-sided; None if there is no
            interval.
    """

    differences: tuple[float, ...]
    mean: float
    sd: float | None = None
    interval: tuple[float, float] | None = None
    effect: float | None = None
    p: float | None = None

    @property
    def n(self) -> int:
        return len(self.differences)


def paired(differences: Sequence[float]) -> Paired:
    """The statistics of one or more paired differences."""
    centre = mean(differences)
    if len(differences) == 1:
        return Paired(tuple(differences), centre)
    sd = stdev(differences)
    if sd < _EQUAL:
        return Paired(tuple(differences), centre, 0.0)
    test = optional("scipy.stats", "comparing runs").ttest_1samp(differences, 0.0)
    low, high = test.confidence_interval(LEVEL)
    n = len(differences)
    effect = _hedges_correction(n) * centre / sd if n > 2 else None
    interval = float(low), float(high)
    return Paired(tuple(differences), centre, sd, interval, effect, float(test.pvalue))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction for the comparisons that have a p value; None stays None.

    The smallest of m values is multiplied by m, the next by m - 1, and so on; none falls below the
    one before it, and none exceeds 1. If claims are made below 0.05, at most 5 % of such tables
    contain a wrong claim.
    """
    corrected: list[float | None] = [None] * len(p_values)
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    least = 0.0
    for rank, (p, i) in enumerate(known):
        least = max(least, min(1.0, (len(known) - rank) * p))
        corrected[i] = least
    return corrected


def shown_from(comparisons: Sequence[Paired]) -> list[float | None]:
    """How large the mean of each of m comparisons had to be to be shown; None without a spread.

    It is t sd / sqrt(n) with the comparison's own standard deviation and number of pairs, and the
    quantile t of the first step of Holm's correction. A mean as large is shown whatever the others
    are, and none is as large if none is shown.

    Args:
        comparisons: m comparisons. Those of one pair, or of equal differences, do not count.
    """
    m = sum(bool(c.sd) for c in comparisons)
    quantile = optional("scipy.stats", "comparing runs").t.ppf
    return [
        float(quantile(1 - SIGNIFICANT / 2 / m, c.n - 1)) * c.sd / c.n**0.5 if c.sd else None
        for c in comparisons
    ]


def shown_from_in_words(
    found: Sequence[tuple[str, int, float | None]],
    images: str,
    difference: str = "a mean difference",
) -> list[str]:
    """Sentences on how large differences had to be, and on those that could not be tested.

    Args:
        found: label, number of pairs, and what `shown_from` says, of each comparison.
        images: on how many images, such as " on 100 test images"; may be empty.
        difference: what is shown or not.
    """
    tested = [(x, label, n) for label, n, x in found if x is not None]
    others = [label for label, _, x in found if x is None]
    said = []
    if tested:
        (least, easiest, _), (most, hardest, _) = min(tested), max(tested)
        low, high = f"{least:.1f}", f"{most:.1f}"
        points = (
            f"{low} points" if low == high else f"{low} ({easiest}) to {high} points ({hardest})"
        )
        fewest, largest = min(n for *_, n in tested), max(n for *_, n in tested)
        seeds = f"{largest}" if fewest == largest else f"{fewest} to {largest}"
        said.append(
            f"With {seeds} seeds{images}, {difference} had to reach about {points} to be shown."
        )
    if others:
        where = f"{images}," if images and not tested else ""
        said.append(
            f"One seed, or seeds without spread,{where} cannot show a difference: "
            f"{', '.join(others)}."
        )
    return said


def _hedges_correction(n: int) -> float:
    """The factor that removes the bias of Cohen's d_z for n pairs (Hedges 1981, exact)."""
    df = n - 1
    return exp(lgamma(df / 2) - lgamma((df - 1) / 2) - log(df / 2) / 2)
