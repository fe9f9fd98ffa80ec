"""A labelled set of images in memory, and how to hold out or take a part of any set."""

import math
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from codistill.errors import InputError


@dataclass(frozen=True)
class Split:
    """N images and their labels, decoded.

    Attributes:
        images: (N, H, W, 3), RGB, 0 to 255. Channels come last, so that a batch cut out of them is
            in PyTorch's `channels_last` layout without a copy.
        labels: (N,), 0 to C - 1.
    """

    images: UInt8[Tensor, "N H W 3"]
    labels: Int64[Tensor, "N"]

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Split":
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def take(self, index: Int64[Tensor, "n"]) -> "Split":
        return replace(self, images=self.images[index], labels=self.labels[index])

    def join(self, other: "Split") -> "Split":
        """These images, then those of another split."""
        labels = torch.cat([self.labels, other.labels])
        return replace(self, images=torch.cat([self.images, other.images]), labels=labels)


@dataclass(frozen=True)
class Dataset:
    """A data set in memory.

    Attributes:
        name: name on the command line.
        train: training images.
        test: test images, which never choose anything.
        classes: C names, in the order of the labels.
        fingerprint: SHA-256 over images and labels of all splits, hexadecimal.
        val: the data set's own validation images, if it has any.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    fingerprint: str
    val: Split | None = None

    @property
    def splits(self) -> dict[str, Split]:
        """Those of "train", "val" and "test" that the data set has."""
        found = {"train": self.train, "val": self.val, "test": self.test}
        return {name: split for name, split in found.items() if split is not None}


_S = TypeVar("_S")


@runtime_checkable
class Labelled(Protocol):
    """N images with labels, decoded or not: `Split` and `EncodedSplit`."""

    @property
    def labels(self) -> Tensor: ...

    def __len__(self) -> int: ...

    def take(self: _S, index: Tensor) -> _S: ...

    def join(self: _S, other: _S) -> _S: ...


S = TypeVar("S", bound=Labelled)


def hold_out(
    split: S, fraction: float, seed: int, option: str = "data.val_fraction"
) -> tuple[S, S]:
    """Divides a split into training and held-out images, class by class.

    Args:
        split: N labelled images.
        fraction: share of every class that is held out, 0 (nothing) to below 1. Of a class of two
            images or more, it is one image at least.
        seed: draws the images. The same seed gives the same ones on every machine.
        option: name of the setting that `fraction` comes from, for messages.

    Returns:
        The images to train on, and the held-out ones.
    """
    if not 0 <= fraction < 1:
        raise InputError(f"{option} is {fraction}: give a number from 0 to below 1")
    if not len(split):
        raise InputError("there is not one image to hold out from")
    held = torch.zeros(len(split), dtype=torch.bool)
    rng = torch.Generator().manual_seed(seed)
    labels = split.labels.cpu()
    for label in range(int(labels.max()) + 1):
        members = (labels == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=rng)]
        count = round(fraction * len(members))
        if fraction and not count and len(members) > 1:
            count = 1
        held[members[:count]] = True
    return split.take((~held).nonzero().flatten()), split.take(held.nonzero().flatten())


def take_per_class(split: S, images: int | None, seed: int, fraction: float = 1.0) -> S:
    """Takes some images of every class, in their order, or all of a class that has fewer.

    Args:
        split: N labelled images.
        images: number of images per class; None: all.
        fraction: share of the images of each class, rounded up.
        seed: draws the images. With the same seed, a larger number includes those of a smaller one.
    """
    taken = torch.zeros(len(split), dtype=torch.bool)
    rng = torch.Generator().manual_seed(seed)
    labels = split.labels.cpu()
    for label in range(int(labels.max()) + 1):
        members = (labels == label).nonzero().flatten()
        few = members[torch.randperm(len(members), generator=rng)][:images]
        taken[few[: math.ceil(fraction * len(members))]] = True
    return split.take(taken.nonzero().flatten())
