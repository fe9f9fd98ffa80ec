"""An index of the images in a few large files, made once and kept in the cache."""

import contextlib
import hashlib
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from jaxtyping import Int64

from codistill.data.encoded import EncodedDataset, Listed, Packed, Slices, Store, make_dataset
from codistill.data.readers.class_folders import SPLIT_NAMES
from codistill.errors import InputError
from codistill.files import cache_folder, written
from codistill.messages import note

LAYOUT = 1  # raise it when the index changes


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
    """

    which: Int64[np.ndarray, "N"]
    starts: Int64[np.ndarray, "N"]
    sizes: Int64[np.ndarray, "N"]
    labels: Int64[np.ndarray, "N"]
    names: list[str]
    splits: list[str]
    members: list[int]
    classes: list[str]

    def slices(self, files: list[Path]) -> Slices:
        """The store of these images in their large files."""
        return Slices(
            tuple(map(str, files)), Packed(self.names), self.which, self.starts, self.sizes
        )


def index_key(name: str, files: list[Path], *facts: object) -> Path:
    """The stem of an index's path in the cache. It changes if one of the files changes."""
    stats = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    key = hashlib.sha256(json.dumps([LAYOUT, name, stats, *facts]).encode()).hexdigest()[:16]
    return cache_folder() / f"{name}-{key}"


def kept_index(path: Path, build: Callable[[], Index]) -> Index:
    """Reads an index; builds and writes it if there is none that can be read."""
    unusable = contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile)
    with unusable, open(path, "rb") as kept, np.load(kept, allow_pickle=False) as stored:
        about = json.loads(stored["about"].tobytes())
        arrays = {k: stored[k] for k in ("which", "starts", "sizes", "labels")}
        return Index(**arrays, **about)
    index = build()
    about = {k: getattr(index, k) for k in ("names", "splits", "members", "classes")}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written(path) as temporary, open(temporary, "wb") as file:
            np.savez(
                file,
                which=index.which,
                starts=index.starts,
                sizes=index.sizes,
                labels=index.labels,
                about=np.frombuffer(json.dumps(about).encode(), np.uint8),
            )
    except OSError as error:
        note(f"{path} cannot be written, so it is made again next time: {error}")
    return index


def indexed_dataset(name: str, index: Index, store: Store, notes: list[str]) -> EncodedDataset:
    """The data set that an index describes, and whose images a store has in the same order."""
    splits = np.repeat(np.arange(len(index.splits)), index.members).tolist()
    listing = [
        Listed(index.splits[split], label, size, image)
        for split, label, size, image in zip(
            splits, index.labels.tolist(), index.sizes.tolist(), index.names, strict=True
        )
    ]
    return make_dataset(name, listing, store, index.classes, notes)


def splits_of(files: list[PurePath]) -> list[str]:
    """The split that each file's path names, or "all" for each if none does.

    Args:
        files: paths relative to the root of the data set.
    """
    found = [_split_of(file) for file in files]
    if "" in found and any(found):
        raise InputError(
            f"{files[found.index('')]} has no train, val or test in its path, "
            "but other files have: rename or remove it"
        )
    named = set(found)
    if named & {"val", "test"} and "train" not in named:
        raise InputError(f"there are files for {' and '.join(sorted(named))}, but none for train")
    return ["all"] * len(files) if named <= {"", "train"} else found


def _split_of(file: PurePath) -> str:
    """The split that the last such word of a path names: "test" for train/test_photos/0.tar."""
    words = "".join(c if c.isalpha() else " " for c in str(file.with_suffix(""))).lower().split()
    for word in reversed(words):
        for split, names in SPLIT_NAMES.items():
            if word in names:
                return split
    return ""


def number_labels(
    values: list[str], names: list[str] | None, where: Callable[[int], str]
) -> tuple[list[int], list[str]]:
    """Labels 0 to C - 1 and C names.

    Args:
        values: one label for each image, as found: numbers or names.
        names: names of the classes that numbers stand for, if they are known.
        where: names the i-th image in a message.
    """
    if not all(value.isdecimal() for value in values):
        classes = sorted(set(values))
        places = {name: i for i, name in enumerate(classes)}
        return [places[value] for value in values], classes
    numbers = list(map(int, values))
    most = max(numbers, default=-1)
    if names is None and most < 1_000_000:
        return numbers, [str(i) for i in range(most + 1)]
    if names is None or most >= len(names):
        why = (
            f"not 0 to {len(names) - 1}, as there are {len(names)} classes"
            if names
            else "too large"
        )
        raise InputError(f"{where(numbers.index(most))}: the label is {most}, {why}")
    return numbers, names
