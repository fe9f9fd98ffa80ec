"""A labelled set of images that fits into memory, and how a part of a set is held out."""

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
        images: (N, H, W, 3), RGB, 0 to 255. Channels come last because a batch cut out of it is
            then in PyTorch's `channels_last` layout with no copy.
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
    """Everything that is known of a data set.

    Attributes:
        name: as on the command line.
        train: the images to learn from.
        test: the images that never choose anything.
        classes: the C names, in the order of the labels.
        fingerprint: SHA-256 over images and labels of all splits, hexadecimal.
        val: images that the data set has to choose by, if it has any.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    fingerprint: str
    val: Split | None = None

    @property
    def splits(self) -> dict[str, Split]:
        """Those that there are of "train", "val" and "test"."""
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
    """Divides a split into one to train on and one to choose by, class by class.

    Args:
        split: N labelled images.
        fraction: the share of every class that is held out, 0 (nothing) to below 1.
        seed: draws which. The same seed gives the same images on every machine.
        option: what `fraction` is called where it was given.

    Returns:
        What is left to train on, and what is held out.
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
        held[members[: round(fraction * len(members))]] = True
    return split.take((~held).nonzero().flatten()), split.take(held.nonzero().flatten())


def take_per_class(split: S, images: int, seed: int) -> S:
    """So many images of every class, in their order; all of a class that has fewer.

    Args:
        split: N labelled images.
        images: how many of every class.
        seed: draws which. More images with the same seed hold the fewer ones.
    """
    taken = torch.zeros(len(split), dtype=torch.bool)
    rng = torch.Generator().manual_seed(seed)
    labels = split.labels.cpu()
    for label in range(int(labels.max()) + 1):
        members = (labels == label).nonzero().flatten()
        taken[members[torch.randperm(len(members), generator=rng)][:images]] = True
    return split.take(taken.nonzero().flatten())
