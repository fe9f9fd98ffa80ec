"""Labelled images that stay encoded in their files, tars or tables."""

import hashlib
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64, UInt32
from torch import Tensor

from codistill.data.class_names import alike_notes, refuse_other_classes
from codistill.errors import InputError
from codistill.messages import counted, quoted


class Packed:
    """N strings in two arrays. Workers share arrays, but each would copy a million Python strings.

    Names of files that are no valid UTF-8 are kept as they are.
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
    """N encoded images. Every worker has a copy of the store, but not of the images."""

    def __len__(self) -> int: ...

    def read(self, i: int) -> bytes:
        """The bytes of image i, as in a file. Raises OSError."""
        ...

    def name(self, i: int) -> str:
        """The name of image i, for messages."""
        ...

    def stamp(self, i: int) -> str:
        """What tells image i, as it is now, from all others. Raises OSError."""
        ...


@dataclass(frozen=True)
class Files:
    """One image, one file.

    Attributes:
        root: folder of the files.
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

    def stamp(self, i: int) -> str:
        return _stamp(self.path(i))

    def path(self, i: int) -> str:
        """The path of image i."""
        return os.path.join(self.root, self.names[i])


@dataclass(frozen=True)
class Slices:
    """Images that lie one after the other in a few large files, such as tars.

    The file is opened for each image, so that workers keep no files open, however many there are.

    Attributes:
        files: paths.
        names: N names.
        which: (N,), place of each image's file in `files`.
        starts: (N,), first byte of each image in its file.
        sizes: (N,), bytes of each image.
        crcs: (N,), CRC-32 of each image, where the files are copies in the cache.
        kept: index of the copies. It is removed if an image is not as it was copied, so that the
            next command makes the copies anew.
    """

    files: tuple[str, ...]
    names: Packed
    which: Int64[np.ndarray, "N"]
    starts: Int64[np.ndarray, "N"]
    sizes: Int64[np.ndarray, "N"]
    crcs: UInt32[np.ndarray, "N"] | None = None
    kept: str = ""

    def __len__(self) -> int:
        return len(self.names)

    def read(self, i: int) -> bytes:
        with open(self.files[self.which[i]], "rb") as file:
            file.seek(int(self.starts[i]))
            content = file.read(int(self.sizes[i]))
        if self.crcs is not None and zlib.crc32(content) != self.crcs[i]:
            Path(self.kept).unlink(missing_ok=True)
            raise InputError(
                f"{file.name}, a copy in the cache, is damaged ({self.name(i)}): start the command "
                "again, or continue with --resume, and the copy is made anew"
            )
        return content

    def name(self, i: int) -> str:
        return self.names[i]

    def stamp(self, i: int) -> str:
        return f"{_stamp(self.files[self.which[i]])}\t{self.starts[i]}\t{self.sizes[i]}"


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

    def stamp(self, i: int) -> str:
        return hashlib.sha256(self.contents[i]).hexdigest()


def _stamp(file: str) -> str:
    found = os.stat(file)
    return f"{file}\t{found.st_size}\t{found.st_mtime_ns}"


@dataclass(frozen=True)
class EncodedSplit:
    """N labelled images, not decoded.

    Attributes:
        labels: (N,), 0 to C - 1.
        store: holds these images, and perhaps others.
        index: (N,), place of each image in `store`.
        bits: bits of a pixel that 16-bit images use; None: all 16, as nobody said.
    """

    labels: Int64[Tensor, "N"]
    store: Store
    index: Int64[np.ndarray, "N"]
    bits: int | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, i: int) -> bytes:
        """The bytes of image i, as in a file. Raises OSError."""
        return self.store.read(int(self.index[i]))

    def name(self, i: int) -> str:
        """The name of image i, for messages."""
        return self.store.name(int(self.index[i]))

    def take(self, index: Int64[Tensor, "n"]) -> "EncodedSplit":
        """The n images at these places, in this order."""
        return replace(self, labels=self.labels[index], index=self.index[index.numpy()])

    def join(self, other: "EncodedSplit") -> "EncodedSplit":
        """These images, then those of another split of the same store."""
        labels = torch.cat([self.labels, other.labels])
        return replace(self, labels=labels, index=np.concatenate([self.index, other.index]))


@dataclass(frozen=True)
class Origin:
    """What a reader took for labels and splits.

    Attributes:
        labels: where the labels are from, such as "the column 'label'".
        splits: split -> where its images are from, if that is more than the name.
    """

    labels: str = "the data set itself"
    splits: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EncodedDataset:
    """A data set whose images are not decoded.

    Attributes:
        name: name on the command line.
        splits: those of "train", "val" and "test" that the data set has; or "all", to be divided.
        classes: C names, in the order of the labels.
        fingerprint: SHA-256 over split, label, size in bytes and name of every image, hexadecimal.
        notes: remarks on the listing, one line each.
        origin: what was taken for labels and splits.
    """

    name: str
    splits: Mapping[str, EncodedSplit]
    classes: tuple[str, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()
    origin: Origin = Origin()

    def taken(self) -> list[str]:
        """What was taken for splits, classes and labels, one line each."""
        parts = []
        for split, images in self.splits.items():
            place = self.origin.splits.get(split)
            parts.append(
                f"{'undivided' if split == 'all' else split} {len(images):,}"
                + (f" from {place}" if place else "")
            )
        names = quoted(self.classes)
        return [
            f"images: {', '.join(parts)}",
            f"{counted(len(self.classes), 'class', 'classes')} from {self.origin.labels}: {names}",
        ]


@dataclass(frozen=True)
class Listed:
    """An image in a listing.

    Attributes:
        split: "train", "val", "test" or "all".
        label: 0 to C - 1.
        size: size in bytes.
        name: path relative to the root of the data set.
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
    origin: Origin | None = None,
) -> EncodedDataset:
    """Makes the data set of a listing.

    Args:
        name: name of the data set.
        listing: N images, in the order of `store`.
        store: reads the images.
        classes: C names.
        notes: remarks on the listing.
        origin: what was taken for labels and splits.

    Raises:
        InputError: a split has other classes than train.
    """
    classes = tuple(classes)
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
    origin = origin or Origin()
    present = {s: {classes[label] for label in Counter(found)} for s, found in labels.items()}
    refuse_other_classes(present, origin.splits)
    notes = (*notes, *alike_notes(classes))
    return EncodedDataset(name, splits, classes, digest.hexdigest(), notes, origin)
