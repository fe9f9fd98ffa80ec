"""Divides any data set, in memory or not, into images to train, validate and test on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic

from codistill.data.balance import absent_note, balance_notes, count_classes
from codistill.data.dataset import S, hold_out
from codistill.errors import InputError

VAL_FRACTION = 0.1  # default, for a data set without validation images
TEST_FRACTION = 0.2  # default, for a data set that is not divided


@dataclass(frozen=True)
class Division(Generic[S]):
    """The splits of a data set.

    Attributes:
        train: training images.
        val: validation images, which choose an epoch; None if nothing is held out.
        test: test images, which are reported and never choose.
        val_fraction: share that was held out, 0.0 if there is none to spare; None if the data set
            has validation images.
        test_fraction: share that became the test split; None if the data set has test images.
        spare: whether images could be held out, if nobody asked for none.
    """

    train: S
    val: S | None
    test: S
    val_fraction: float | None
    test_fraction: float | None
    spare: bool = True

    def evaluated(self) -> dict[str, S]:
        """The images to evaluate on: "val", if there are any, and "test"."""
        found = {} if self.val is None else {"val": self.val}
        return found | {"test": self.test}


def divide(
    splits: Mapping[str, S],
    val_fraction: float | None,
    test_fraction: float | None,
    seed: int,
) -> Division[S]:
    """Divides a data set.

    - The data set's own validation images are `val`, unless `val_fraction` is given. Then they join
      the training images, and this share of all of them is held out.
    - If there are only training and validation images, the validation images are `test`.
    - A data set that is not divided first gives a share of every class to `test`.

    Args:
        splits: those of "train", "val" and "test" that the data set has; or "all".
        val_fraction: share of the training images to validate on; 0: none. None: as above.
        test_fraction: share of "all" to test on.
        seed: draws the held-out images.
    """
    train, val, test = (splits.get(name) for name in ("train", "val", "test"))
    if "all" in splits:
        test_fraction = TEST_FRACTION if test_fraction is None else test_fraction
        train, test = hold_out(splits["all"], test_fraction, seed, "data.test_fraction")
        if not len(test):
            raise InputError(
                "there is not one image to test on, as no class has two: give 2 or more of a class"
            )
        if not len(train):
            raise InputError(
                f"data.test_fraction {test_fraction} leaves not one image to train on: give less"
            )
    elif test_fraction is not None:
        raise InputError(
            "data.test_fraction is for data sets without test images, and this one has some: "
            "leave it out"
        )
    if train is None or not len(train):
        raise InputError("there is not one image to train on")
    if test is None:
        val, test = None, val
    if test is None or not len(test):
        raise InputError("there is not one image to test on")
    if val is not None:
        if val_fraction is None:
            return Division(train, val, test, None, test_fraction)
        train = train.join(val)
    asked = val_fraction
    val_fraction = VAL_FRACTION if asked is None else asked
    left, held = hold_out(train, val_fraction, seed)
    if asked and not len(held):
        raise InputError(
            f"data.val_fraction is {asked}, and no class has two images to train on: give more "
            "images, or --data.val_fraction 0"
        )
    spare = bool(len(held)) or asked is not None
    if not len(held):
        val_fraction = 0.0
    if not len(left):
        raise InputError(
            f"data.val_fraction {val_fraction} leaves not one image to train on: give less"
        )
    return Division(left, held if len(held) else None, test, val_fraction, test_fraction, spare)


def division_notes(division: Division[S], classes: Sequence[str]) -> tuple[str, ...]:
    """Remarks on the number of images per class, one line each."""
    counts = {
        split: count_classes(images.labels, len(classes))
        for split, images in {"train": division.train, **division.evaluated()}.items()
    }
    train = counts.pop("train")
    notes = list(balance_notes(train, classes))
    if division.val is None and division.spare is False:
        notes.append(
            "no class has two images to train on, so no images choose an epoch: the last one counts"
        )
    for split, numbers in counts.items():
        drawn = split == "val" and division.val_fraction is not None  # from train: absent there too
        absent = [
            name
            for name, n, trained_on in zip(classes, numbers, train, strict=True)
            if not n and (trained_on or not drawn)
        ]
        if absent:
            notes.append(absent_note(split, absent))
    return tuple(notes)
