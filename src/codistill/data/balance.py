"""Images per class, and notes on their balance."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from codistill.messages import quoted

FEW = 5  # images: classes with fewer get a note
IMBALANCE = 10.0  # largest class over smallest: a larger ratio gets a note


def count_classes(labels: Tensor, num_classes: int) -> list[int]:
    """The number of images of each class, from labels (N,)."""
    return torch.bincount(labels.cpu(), minlength=num_classes).tolist()


def imbalance(counts: Sequence[int]) -> float:
    """The largest class over the smallest that has an image; 1.0 is balance."""
    present = [count for count in counts if count]
    return max(present) / min(present) if present else 1.0


def absent_note(split: str, absent: Sequence[str]) -> str:
    """A note on classes that no image of a split has."""
    images = "no image to train on" if split == "train" else f"no image of {split}"
    return f"{images} has the class {quoted(absent)}"


def balance_notes(counts: Sequence[int], classes: Sequence[str]) -> Iterator[str]:
    """Notes on the number of training images per class, one line each."""
    absent = [name for name, count in zip(classes, counts, strict=True) if not count]
    few = [name for name, count in zip(classes, counts, strict=True) if 0 < count < FEW]
    if absent:
        yield absent_note("train", absent)
    if few:
        yield f"fewer than {FEW} images to train on have the class {quoted(few)}"
    if (ratio := imbalance(counts)) > IMBALANCE:
        yield f"the largest class has {ratio:,.0f} times as many images as the smallest"
