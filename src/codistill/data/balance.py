"""How many images each class has, and what is remarkable about it."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

FEW = 5  # images, fewer than which there is a note
IMBALANCE = 10.0  # largest class over smallest, above which there is a note

_SHOWN = 5  # classes that a note names


def count_classes(labels: Tensor, num_classes: int) -> list[int]:
    """The number of images of each class, of labels (N,)."""
    return torch.bincount(labels.cpu(), minlength=num_classes).tolist()


def imbalance(counts: Sequence[int]) -> float:
    """The largest class over the smallest that has an image; 1.0 is balance."""
    present = [count for count in counts if count]
    return max(present) / min(present) if present else 1.0


def balance_notes(counts: Sequence[int], classes: Sequence[str]) -> Iterator[str]:
    """What the counts of the training images give to think, one line each."""
    absent = [name for name, count in zip(classes, counts, strict=True) if not count]
    few = [name for name, count in zip(classes, counts, strict=True) if 0 < count < FEW]
    if absent:
        yield f"no image to train on has the class {shorten(absent)}"
    if few:
        yield f"fewer than {FEW} images to train on have the class {shorten(few)}"
    if (ratio := imbalance(counts)) > IMBALANCE:
        yield f"the largest class has {ratio:,.0f} times as many images as the smallest"


def shorten(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
