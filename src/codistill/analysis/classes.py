"""Which classes one classifier knows better than another."""

from dataclasses import dataclass

from codistill.analysis.predictions import Predictions


@dataclass(frozen=True)
class ClassChange:
    """One class, told by two classifiers.

    Attributes:
        label: 0 to C - 1.
        name: of the class.
        images: how many of it there are.
        first, second: accuracy of the two classifiers, in %.
        gained: images that only the second is right about.
        lost: images that only the first is right about.
        p: of the exact sign test on gained and lost (McNemar's exact test), two-sided; 1 where
            both are right about the same images.
        corrected: p after Holm's correction for all classes. Below 0.05: a finding. Else the class
            may well stand where it stands by chance.
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
        """Accuracy of the second less that of the first, in percentage points."""
        return self.second - self.first

    @property
    def standard_error(self) -> float:
        """Of the difference, in percentage points, if images of the class were drawn anew."""
        raise NotImplementedError


@dataclass(frozen=True)
class ClassChanges:
    """Every class, told by two classifiers.

    Attributes:
        first, second: names of the classifiers.
        overall: all images as if they were one class, with label -1 and name "all".
        classes: those that there are images of, from the most improved to the most hurt.
        findings: how many classes differ with a corrected p below 0.05.
        by_chance: how many classes would have an uncorrected p below 0.05, were there no
            difference in any class; to be compared with `uncorrected`. At most 5 % of the
            classes, fewer where there are few images, because the test is exact.
        uncorrected: how many classes do.
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
        raise NotImplementedError

    def most_hurt(self, n: int = 5) -> list[ClassChange]:
        """Up to n classes that the first knows better, the most hurt first."""
        raise NotImplementedError


def class_accuracies(
    predictions: Predictions, classifier: str, num_classes: int
) -> list[float | None]:
    """Accuracy of a classifier in each class, in %; None where there is no image."""
    raise NotImplementedError


def class_changes(
    predictions: Predictions, first: str, second: str, names: tuple[str, ...]
) -> ClassChanges:
    """Where two classifiers differ, class by class, in alphabetical order where they tie."""
    raise NotImplementedError
