"""An index of the images in a few large files, made once and kept in the cache."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt32

from codistill.data.encoded import (
    EncodedDataset,
    Listed,
    Origin,
    Packed,
    Slices,
    Store,
    make_dataset,
)
from codistill.errors import InputError, reason
from codistill.files import cache_path, stats_of, writing_alone, written
from codistill.messages import note, shorten

LAYOUT = 4  # raise it when the index changes
_ARRAYS = ("which", "starts", "sizes", "labels", "crcs")
_ABOUT = ("names", "splits", "members", "classes", "origin", "notes")


@dataclass(frozen=True)
class Index:
    """The places of N images in large files.

    Attributes:
        which: (N,), number of each image's file.
        starts: (N,), first byte of each image in its file.
        sizes: (N,), bytes of each image.
        labels: (N,), 0 to C - 1.
        names: N names, relative to the root of the data set.
        splits: split of each listed file: "train", "val", "test" or "all".
        members: number of images in each listed file, in order.
        classes: C names.
        origin: where the labels are from, for messages.
        notes: remarks on what was left out.
        crcs: (N,), CRC-32 of each image, where the large files are copies in the cache.
    """

    which: Int64[np.ndarray, "N"]
    starts: Int64[np.ndarray, "N"]
    sizes: Int64[np.ndarray, "N"]
    labels: Int64[np.ndarray, "N"]
    names: list[str]
    splits: list[str]
    members: list[int]
    classes: list[str]
    origin: str
    notes: list[str] = field(default_factory=list)
    crcs: UInt32[np.ndarray, "N"] | None = None

    def slices(self, files: list[Path], kept: Path) -> Slices:
        """The store of these images in their large files.

        Args:
            files: the large files.
            kept: the file of this index.
        """
        places = self.which, self.starts, self.sizes
        return Slices(tuple(map(str, files)), Packed(self.names), *places, self.crcs, str(kept))


def index_key(name: str, files: list[Path], *facts: object) -> Path:
    """The stem of an index's path in the cache. It changes if one of the files changes."""
    return cache_path(name, LAYOUT, name, stats_of(files), *facts)


def kept_index(path: Path, build: Callable[[], Index]) -> Index:
    """Reads an index; builds and writes it if there is none that can be read."""
    try:
        with open(path, "rb") as kept, np.load(kept, allow_pickle=False) as stored:
            arrays = {k: stored[k] for k in stored.files}  # NumPy compares their checksums
        about = json.loads(arrays.pop("about").tobytes())
        return Index(**arrays, **about)
    except FileNotFoundError:
        pass
    except Exception as error:  # a damaged file can raise nearly anything
        note(f"{path} cannot be read and is made again: {reason(error)}")
    index = build()
    about = {k: getattr(index, k) for k in _ABOUT}
    try:
        with writing_alone(path), written(path) as temporary, open(temporary, "wb") as file:
            arrays = {k: getattr(index, k) for k in _ARRAYS if getattr(index, k) is not None}
            np.savez(file, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays)
    except (InputError, OSError) as error:
        note(f"{path} cannot be written, so it is made again next time: {error}")
    return index


def indexed_dataset(name: str, index: Index, store: Store, files: list[Path]) -> EncodedDataset:
    """The data set that an index describes, and whose images a store has in the same order.

    Args:
        name: name of the data set.
        index: describes the images.
        store: reads them.
        files: the large files, as the index counts them.
    """
    named = index.splits
    splits = np.repeat(np.arange(len(named)), index.members).tolist()
    listing = [
        Listed(named[split], label, size, image)
        for split, label, size, image in zip(
            splits, index.labels.tolist(), index.sizes.tolist(), index.names, strict=True
        )
    ]
    places: dict[str, str] = {}
    for split in dict.fromkeys(named):
        of_split = [f.name for f, s in zip(files, named, strict=True) if s == split]
        places[split] = shorten(of_split)
    origin = Origin(index.origin, places)
    return make_dataset(name, listing, store, index.classes, index.notes, origin)


def files_below(root: Path, *suffixes: str) -> list[Path]:
    """The files of these suffixes at any depth, sorted, without hidden ones."""
    found = []
    for file in root.rglob("*"):
        inside = file.relative_to(root).parts
        hidden = any(part[0] == "." or part == "__MACOSX" for part in inside)
        if file.suffix.lower() in suffixes and not hidden and file.is_file():
            found.append(file)
    return sorted(found)
