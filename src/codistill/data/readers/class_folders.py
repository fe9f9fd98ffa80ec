"""Class folders of images, perhaps inside folders for the splits."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from codistill.data.balance import shorten
from codistill.data.encoded import EncodedDataset, Files, Listed, Packed, make_dataset
from codistill.data.readers.decode import SUFFIXES
from codistill.errors import InputError

SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


@dataclass
class Tree:
    """The contents of class folders.

    Attributes:
        images: split -> class -> name relative to the root and size in bytes, in order.
        ignored: number of files by suffix, for suffixes that no image has.
        loose: number of images that lie in no class folder.
        unused: names of folders beside those of the splits.
    """

    images: dict[str, dict[str, list[tuple[str, int]]]] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)
    loose: int = 0
    unused: list[str] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        """The names of the classes of all splits, sorted."""
        return sorted({name for kinds in self.images.values() for name in kinds})

    def notes(self) -> Iterator[str]:
        """Remarks on what was left out, and on names that may mean the same class."""
        empty = [
            name if split == "all" else f"{split}/{name}"
            for split, kinds in self.images.items()
            for name, files in kinds.items()
            if not files
        ]
        if empty:
            yield f"no images in the class folder {shorten(empty)}"
        if self.ignored:
            kinds = ", ".join(f"{n:,} {suffix}" for suffix, n in self.ignored.most_common(5))
            yield f"files without the suffix of an image, which are not used: {kinds}"
        if self.loose:
            yield f"images that lie in no class folder, and are not used: {self.loose:,}"
        if self.unused:
            yield f"folders beside those of the splits, which are not used: {shorten(self.unused)}"
        alike: dict[str, list[str]] = {}
        for name in self.classes:
            alike.setdefault(unicodedata.normalize("NFC", name).casefold(), []).append(name)
        for names in alike.values():
            if len(names) > 1:
                yield f"classes of nearly the same name: {shorten(names)}"


def list_folder(root: Path) -> EncodedDataset:
    """Any images in class folders, perhaps inside train/, val/ and test/."""
    tree = list_tree(root, find_splits(root))
    filled = [name for name in tree.classes if any(k.get(name) for k in tree.images.values())]
    if len(filled) < 2:
        found = f"images of {filled[0]!r} only" if filled else "no images in class folders"
        raise InputError(
            f"{root} has {found}: give a folder with two or more folders, one for each class, "
            "such as cat/1.jpg and dog/2.jpg, perhaps inside train/ and test/"
        )
    return dataset_of_tree("folder", root, tree, filled, filled)


def find_splits(root: Path) -> dict[str, Path]:
    """The folder of each split that exists; {"all": ...} if the images are not divided."""
    inside = subfolders(root)
    found: dict[str, Path] = {}
    for folder in inside:
        for split, names in SPLIT_NAMES.items():
            if folder.name.lower() in names:
                if split in found:
                    raise InputError(
                        f"{root} has both {found[split].name}/ and {folder.name}/: remove or "
                        "rename one of them"
                    )
                found[split] = folder
    if "train" not in found:
        if found and len(found) == len(inside) and any(map(subfolders, found.values())):
            others = " and ".join(f"{folder.name}/" for folder in found.values())
            raise InputError(f"{root} has {others} but no train/")
        return {"all": root}
    if len(found) == 1 and subfolders(found["train"]):
        beside = [f.name for f in inside if f != found["train"] and _has_images(f)]
        if beside:
            raise InputError(
                f"{root} has images in {shorten(beside)} beside train/, which has folders of its "
                "own: give a folder of classes, or one that is divided into train/ and test/"
            )
    if not subfolders(found["train"]):
        if len(found) == 1 and len(inside) > 1:
            return {"all": root}  # a class of trains among other classes
        raise InputError(
            f"{found['train']} has no folders in it: sort the images into one folder per class"
        )
    return {"all": found["train"]} if len(found) == 1 else found


def list_tree(root: Path, folders: Mapping[str, Path]) -> Tree:
    """Lists all images in class folders.

    Args:
        root: folder that names are relative to.
        folders: split -> folder that holds its class folders.
    """
    tree = Tree()
    places = {root, *folders.values()}
    tree.loose = sum(_is_image(file) for place in places for file in place.iterdir())
    if root not in folders.values() and len(folders) > 1:
        tree.unused = [f.name for f in subfolders(root) if f not in folders.values()]
    for split in ("train", "val", "test", "all"):
        if split in folders:
            tree.images[split] = {
                kind.name: sorted(list_images(root, kind, tree.ignored))
                for kind in subfolders(folders[split])
            }
    return tree


def list_images(root: Path, folder: Path, ignored: Counter[str]) -> Iterator[tuple[str, int]]:
    """Name relative to root and size in bytes of every image in a folder, at any depth.

    Args:
        root: folder that names are relative to.
        folder: folder inside root.
        ignored: counts the suffixes of other files. Hidden files are not counted.
    """
    above = tuple((stat.st_dev, stat.st_ino) for stat in map(os.stat, {root, folder.parent}))
    yield from _walk(str(folder), folder.relative_to(root).as_posix(), ignored, above)


def _walk(
    path: str, name: str, ignored: Counter[str], above: tuple[tuple[int, int], ...]
) -> Iterator[tuple[str, int]]:
    stat = os.stat(path)
    if (here := (stat.st_dev, stat.st_ino)) in above:  # a link to a folder above it
        return
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            inner = f"{name}/{entry.name}"
            if entry.is_dir():
                yield from _walk(entry.path, inner, ignored, (*above, here))
                continue
            suffix = os.path.splitext(entry.name)[1].lower()
            # Reading a pipe would wait. A link to nothing is listed, and found to be broken later.
            if suffix in SUFFIXES and (entry.is_file() or entry.is_symlink()):
                yield inner, _size(entry)
            else:
                ignored[suffix or "without a suffix"] += 1


def _is_image(file: Path) -> bool:
    hidden = file.name.startswith(".")
    return not hidden and file.suffix.lower() in SUFFIXES and file.is_file()


def _has_images(folder: Path) -> bool:
    return any(map(_is_image, folder.iterdir()))


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError:  # a link to nothing
        return 0


def subfolders(folder: Path) -> list[Path]:
    """The folders inside a folder, sorted, without hidden ones."""
    inside = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in inside if path.is_dir() and path.name != "__MACOSX")


def dataset_of_tree(
    name: str, root: Path, tree: Tree, kinds: list[str], classes: list[str]
) -> EncodedDataset:
    """Makes the data set of a listing.

    Args:
        name: name of the data set.
        root: folder that names in the listing are relative to.
        tree: listing.
        kinds: names of the C class folders.
        classes: names of the C classes.
    """
    labels = {kind: label for label, kind in enumerate(kinds)}
    listing = [
        Listed(split, labels[kind], size, file)
        for split, found in tree.images.items()
        for kind, images in found.items()
        for file, size in images
    ]
    store = Files(str(root), Packed(image.name for image in listing))
    return make_dataset(name, listing, store, classes, tree.notes())
