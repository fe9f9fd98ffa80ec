"""Images in one folder per class."""

from collections import Counter
from pathlib import Path

import torch

from codistill.data.dataset import Split
from codistill.data.readers.class_folders import list_images, subfolders
from codistill.data.readers.decode import decode_images
from codistill.errors import InputError

Listing = dict[str, list[Path]]  # class name -> its images, both in order


def list_class_folders(root: Path) -> tuple[Listing, Listing] | None:
    """The images for train and test, or None where root is not of this form."""
    train = root / "train"
    found = [root / name for name in ("test", "val", "valid") if (root / name).is_dir()]
    if not train.is_dir():
        return None
    if not found:
        raise InputError(f"{root} has a folder 'train' but neither 'test' nor 'val'")
    return _list_split(root, train), _list_split(root, found[0])


def read_class_folders(train: Listing, test: Listing) -> tuple[Split, Split, tuple[str, ...]]:
    """Train, test and class names, decoded."""
    classes = tuple(train)
    unknown = [name for name in test if name not in train]
    if unknown:
        file = next(iter(test[unknown[0]]), unknown[0])
        raise InputError(f"the test class {unknown[0]!r} ({file}) is not among the train classes")
    return _read_split(train, classes), _read_split(test, classes), classes


def _list_split(root: Path, folder: Path) -> Listing:
    return {
        kind.name: sorted(root / name for name, _ in list_images(root, kind, Counter()))
        for kind in subfolders(folder)
    }


def _read_split(listing: Listing, classes: tuple[str, ...]) -> Split:
    files = [file for kind in listing.values() for file in kind]
    labels = [classes.index(name) for name, kind in listing.items() for _ in kind]
    images = decode_images(files, lambda i: str(files[i]))
    return Split(images, torch.tensor(labels, dtype=torch.int64))
