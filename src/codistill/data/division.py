"""Which images train, which choose, and which report: of any data set, in memory or not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic

from codistill.data.dataset import S, hold_out
from codistill.errors import InputError

VAL_FRACTION = 0.1  # held out where nothing is said, and the data set has no validation images
TEST_FRACTION = 0.2  # of a data set that is not divided


@dataclass(frozen=True)
class Division(Generic[S]):
    """What each image is for.

    Attributes:
        train: learnt from.
        val: chosen by; None where nothing is held out.
        test: reported, and never chosen by.
        val_fraction: the share that was held out; None where the data set's own images choose.
        test_fraction: the share that was made the test split; None where there was one.
    """

    train: S
    val: S | None
    test: S
    val_fraction: float | None
    test_fraction: float | None


def divide(
    splits: Mapping[str, S],
    val_fraction: float | None,
    test_fraction: float | None,
    seed: int,
) -> Division[S]:
    """Divides a data set.

    - Its own validation images choose, unless `val_fraction` is given: then they join the training
      images, and that share of all is held out.
    - With training and validation images only, the latter are the test split.
    - What is not divided at all gives a share of every class for testing first.

    Args:
        splits: those that there are of "train", "val" and "test"; or "all".
        val_fraction: share of the training images to choose by; 0: none. None: as above.
        test_fraction: share of "all" to test on.
        seed: draws what is held out.
    """
    train, val, test = (splits.get(name) for name in ("train", "val", "test"))
    if "all" in splits:
        test_fraction = TEST_FRACTION if test_fraction is None else test_fraction
        train, test = hold_out(splits["all"], test_fraction, seed, "data.test_fraction")
        if not len(test):
            raise InputError(
                f"data.test_fraction {test_fraction} of {len(splits['all'])} images is not one "
                "per class: give more, and 3 images or more of a class"
            )
        if not len(train):
            raise InputError(
                f"data.test_fraction {test_fraction} leaves not one image to train on: give less"
            )
    elif test_fraction is not None:
        raise InputError(
            "data.test_fraction divides what is not divided, but here there are images to test "
            "on: leave it out"
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
    val_fraction = VAL_FRACTION if val_fraction is None else val_fraction
    left, held = hold_out(train, val_fraction, seed)
    if val_fraction and not len(held):
        raise InputError(
            f"data.val_fraction {val_fraction} of {len(train)} images is not one per class: "
            "give more, or 0"
        )
    if not len(left):
        raise InputError(
            f"data.val_fraction {val_fraction} leaves not one image to train on: give less"
        )
    return Division(left, held if len(held) else None, test, val_fraction, test_fraction)
