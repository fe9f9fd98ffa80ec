"""Classes that one classifier knows better than another."""

import functools
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from codistill.analysis.paired import SIGNIFICANT, holm
from codistill.analysis.predictions import Predictions
from codistill.importing import optional


@dataclass(frozen=True)
class ClassChange:
    """One class under two classifiers.

    Attributes:
        label: label of the class, 0 to C - 1.
        name: name of the class.
        images: number of its images.
        first, second: accuracies of the two classifiers, in %.
        gained: number of images that only the second is right about.
        lost: number of images that only the first is right about.
        p: p value of the exact sign test on gained and lost (McNemar's exact test), two-sided; 1 if
            both are right about the same images.
        corrected: p after Holm's correction for all classes. Below 0.05 it is a finding; otherwise
            the difference may be chance.
    """

    label: int
    name: str
    images: int
    first: float
    second: float
    gained: int
    lost: int
    p: float
    corrected: float

    @property
    def difference(self) -> float:
        """Accuracy of the second minus that of the first, in percentage points."""
        return self.second - self.first

    @property
    def standard_error(self) -> float:
        """Standard error of the difference over new draws of images, in percentage points."""
        n, gained, lost = self.images, self.gained, self.lost
        return 100 * sqrt(gained + lost - (gained - lost) ** 2 / n) / n


@dataclass(frozen=True)
class ClassChanges:
    """Every class under two classifiers.

    Attributes:
        first, second: names of the classifiers.
        overall: all images as if they were one class, with label -1 and name "all".
        classes: classes that have images, from the most improved to the most hurt.
        findings: number of classes with a corrected p below 0.05.
        by_chance: number of classes expected to have an uncorrected p below 0.05 if no class
            differed; compare it with `uncorrected`. It is at most 5 % of the classes, and less if
            there are few images, because the test is exact.
        uncorrected: number of classes with an uncorrected p below 0.05.
    """

    first: str
    second: str
    overall: ClassChange
    classes: tuple[ClassChange, ...]
    findings: int
    by_chance: float
    uncorrected: int

    def most_improved(self, n: int = 5) -> list[ClassChange]:
        """Up to n classes that the second knows better, the most improved first."""
        return [change for change in self.classes if change.difference > 0][:n]

    def most_hurt(self, n: int = 5) -> list[ClassChange]:
        """Up to n classes that the first knows better, the most hurt first."""
        return [change for change in reversed(self.classes) if change.difference < 0][:n]


def class_accuracies(
    predictions: Predictions, classifier: str, num_classes: int
) -> list[float | None]:
    """Accuracy of a classifier in each class, in %; None for a class without images."""
    labels, right = predictions.labels, predictions.right(classifier)
    counts = torch.bincount(labels, minlength=num_classes).tolist()
    rights = torch.bincount(labels[right], minlength=num_classes).tolist()
    return [100 * r / n if n else None for r, n in zip(rights, counts, strict=True)]


def class_changes(
    predictions: Predictions, first: str, second: str, names: tuple[str, ...]
) -> ClassChanges:
    """The differences between two classifiers, class by class; ties in the order of the labels.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    labels, one, two = predictions.labels, predictions.right(first), predictions.right(second)
    found = []
    for label, name in enumerate(names):
        members = labels == label
        if members.any():
            found.append(_change(label, name, one[members], two[members]))
    corrected = holm([change.p for change in found])
    found = [
        replace(c, corrected=p) for c, p in zip(found, corrected, strict=True) if p is not None
    ]
    return ClassChanges(
        first,
        second,
        overall=_change(-1, "all", one, two),
        classes=tuple(sorted(found, key=lambda change: -change.difference)),
        findings=sum(change.corrected < SIGNIFICANT for change in found),
        uncorrected=sum(change.p < SIGNIFICANT for change in found),
        by_chance=sum(_chance(change.gained + change.lost) for change in found),
    )


def _change(
    label: int, name: str, first: Bool[Tensor, "n"], second: Bool[Tensor, "n"]
) -> ClassChange:
    """The change over n images; `first`, `second`: whether each classifier is right, (n,) bool."""
    n = len(first)
    gained, lost = int((second & ~first).sum()), int((first & ~second).sum())
    p = _sign_test(gained, gained + lost)
    before, after = (100 * int(right.sum()) / n for right in (first, second))
    return ClassChange(label, name, n, before, after, gained, lost, p, p)


@functools.cache
def _sign_test(gained: int, changed: int) -> float:
    return (
        float(optional("scipy.stats", "comparing runs").binomtest(gained, changed).pvalue)
        if changed
        else 1.0
    )


@functools.cache
def _chance(changed: int) -> float:
    """The probability of p < 0.05 if gains and losses are equally likely: the largest such p."""
    fewer = np.arange(changed // 2 + 1)
    p = 2 * optional("scipy.stats", "comparing runs").binom.cdf(fewer, changed, 0.5)
    return float(p[p < SIGNIFICANT].max(initial=0.0))
