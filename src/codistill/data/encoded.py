"""Labelled images that stay encoded where they are: in files, in tars, in tables."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor


class Packed:
    """N strings in two arrays: of a million Python strings every worker would have its own copies.

    They may be names of files that are no valid UTF-8.
    """

    def __init__(self, strings: Iterable[str]):
        encoded = [os.fsencode(string) for string in strings]
        self._text = b"".join(encoded)
        self._ends = np.cumsum([0, *map(len, encoded)])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, i: int) -> str:
        return os.fsdecode(self._text[self._ends[i] : self._ends[i + 1]])


@runtime_checkable
class Store(Protocol):
    """N encoded images; every worker has a copy of this, but not of the images."""

    def __len__(self) -> int: ...

    def read(self, i: int) -> bytes:
        """The contents of image i, as a file of it has them. Raises OSError."""
        ...

    def name(self, i: int) -> str:
        """What a message calls image i."""
        ...


@dataclass(frozen=True)
class Files:
    """One image, one file.

    Attributes:
        root: folder.
        names: N paths relative to it.
    """

    root: str
    names: Packed

    def __len__(self) -> int:
        return len(self.names)

    def read(self, i: int) -> bytes:
        with open(self.path(i), "rb") as file:
            return file.read()

    def name(self, i: int) -> str:
        return self.names[i]

    def path(self, i: int) -> str:
        """Where image i is."""
        return os.path.join(self.root, self.names[i])


@dataclass(frozen=True)
class Slices:
    """Images that lie one after the other in a few large files, such as tars.

    A file is opened for each image: no worker keeps one open, however many there are.

    Attributes:
        files: paths.
        names: N names.
        which: (N,), each image's place in `files`.
        starts: (N,), its first byte.
        sizes: (N,), how many bytes.
    """

    files: tuple[str, ...]
    names: Packed
    which: Int64[np.ndarray, "N"]
    starts: Int64[np.ndarray, "N"]
    sizes: Int64[np.ndarray, "N"]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, i: int) -> bytes:
        with open(self.files[self.which[i]], "rb") as file:
            file.seek(int(self.starts[i]))
            return file.read(int(self.sizes[i]))

    def name(self, i: int) -> str:
        return self.names[i]


@dataclass(frozen=True)
class Held:
    """Images in memory, for a data set that is decoded at once.

    Attributes:
        contents: N images, each as a file has it.
        names: N names.
    """

    contents: list[bytes]
    names: Packed

    def __len__(self) -> int:
        return len(self.contents)

    def read(self, i: int) -> bytes:
        return self.contents[i]

    def name(self, i: int) -> str:
        return self.names[i]


@dataclass(frozen=True)
class EncodedSplit:
    """N labelled images, not decoded.

    Attributes:
        labels: (N,), 0 to C - 1.
        store: where the images are, and perhaps others.
        index: (N,), the place in `store` of each.
    """

    labels: Int64[Tensor, "N"]
    store: Store
    index: Int64[np.ndarray, "N"]

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, i: int) -> bytes:
        """The contents of image i, as a file of it has them. Raises OSError."""
        return self.store.read(int(self.index[i]))

    def name(self, i: int) -> str:
        """What a message calls image i."""
        return self.store.name(int(self.index[i]))

    def take(self, index: Int64[Tensor, "n"]) -> "EncodedSplit":
        """Those of the images, in this order."""
        return replace(self, labels=self.labels[index], index=self.index[index.numpy()])

    def join(self, other: "EncodedSplit") -> "EncodedSplit":
        """These images, then those of another split of the same store."""
        labels = torch.cat([self.labels, other.labels])
        return replace(self, labels=labels, index=np.concatenate([self.index, other.index]))


@dataclass(frozen=True)
class EncodedDataset:
    """Everything that is known of a data set before an image of it is decoded.

    Attributes:
        name: as on the command line.
        splits: those that it has of "train", "val" and "test"; or "all", to be divided.
        classes: the C names, in the order of the labels.
        fingerprint: SHA-256 over split, label, size in bytes and name of every image, hexadecimal.
        notes: what was remarkable in the listing, one line each.
    """

    name: str
    splits: Mapping[str, EncodedSplit]
    classes: tuple[str, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listed:
    """An image in a listing.

    Attributes:
        split: "train", "val", "test" or "all".
        label: 0 to C - 1.
        size: in bytes.
        name: relative to the root of the data set, the same wherever that is.
    """

    split: str
    label: int
    size: int
    name: str


def make_dataset(
    name: str,
    listing: Iterable[Listed],
    store: Store,
    classes: Iterable[str],
    notes: Iterable[str] = (),
) -> EncodedDataset:
    """The data set of a listing.

    Args:
        name: of the data set.
        listing: the N images in the order of `store`.
        store: reads them.
        classes: C names.
        notes: what was remarkable.
    """
    digest = hashlib.sha256()
    labels: dict[str, list[int]] = {}
    places: dict[str, list[int]] = {}
    for place, image in enumerate(listing):
        line = f"{image.split}\t{image.label}\t{image.size}\t{image.name}\n"
        digest.update(os.fsencode(line))
        labels.setdefault(image.split, []).append(image.label)
        places.setdefault(image.split, []).append(place)
    splits = {
        split: EncodedSplit(
            torch.tensor(labels[split], dtype=torch.int64),
            store,
            np.array(places[split], dtype=np.int64),
        )
        for split in labels
    }
    return EncodedDataset(name, splits, tuple(classes), digest.hexdigest(), tuple(notes))
