"""Class folders of images, perhaps inside folders for the splits."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from codistill.data.encoded import EncodedDataset, Files, Listed, Origin, Packed, make_dataset
from codistill.data.readers.folders import is_image, is_visible, list_images, subfolders
from codistill.data.readers.layout import advice, find_layout
from codistill.data.readers.splits import SplitNames
from codistill.errors import InputError
from codistill.messages import counted, quoted, shorten


@dataclass
class Tree:
    """The contents of class folders.

    Attributes:
        images: split -> class -> name relative to the root and size in bytes, in order.
        ignored: number of files by suffix, for suffixes that no image has, in class folders and
            beside them.
        loose: number of images that lie in no class folder.
        unused: folders beside those of the splits, each with its number of images.
        unlabelled: folders of splits without class folders, each with its number of images.
        places: split -> folder of its class folders, relative to the root.
    """

    images: dict[str, dict[str, list[tuple[str, int]]]] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)
    loose: int = 0
    unused: dict[str, int] = field(default_factory=dict)
    unlabelled: dict[str, int] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    @property
    def classes(self) -> list[str]:
        """The names of the classes of all splits, sorted."""
        return sorted({name for kinds in self.images.values() for name in kinds})

    def notes(self) -> Iterator[str]:
        """Remarks on what was left out."""
        for folder, images in self.unlabelled.items():
            yield (
                f"{folder}/ has {counted(images, 'image')} but no class folders, so they have no "
                "labels and are not used"
                if images
                else f"{folder}/ has no images, and is not used"
            )
        empty = [
            name if split == "all" else f"{split}/{name}"
            for split, kinds in self.images.items()
            for name, files in kinds.items()
            if not files
        ]
        if empty:
            yield f"no images in the class folder {quoted(empty)}"
        if self.ignored:
            kinds = ", ".join(f"{n:,} {suffix}" for suffix, n in self.ignored.most_common(5))
            yield f"files without the suffix of an image, which are not used: {kinds}"
        if self.loose:
            yield f"images that lie in no class folder, and are not used: {self.loose:,}"
        if self.unused:
            unused = [f"{name}/ ({counted(n, 'image')})" for name, n in self.unused.items()]
            yield f"folders beside those of the splits, which are not used: {shorten(unused)}"


def list_folder(root: Path, names: SplitNames, fewest: int = 2) -> EncodedDataset:
    """Any images in class folders, perhaps inside folders for the splits.

    Args:
        root: the folder.
        names: which names of folders say which split.
        fewest: number of classes that there have to be.

    Raises:
        InputError: there are fewer classes, or the folders can be read in two ways.
    """
    if root.is_file():
        raise InputError(f"{root} is a file{advice([root])}: a folder of class folders is needed")
    layout = find_layout(root, names)
    tree = list_tree(root, layout.folders)
    tree.unlabelled, tree.unused = layout.unlabelled, layout.beside
    filled = [name for name in tree.classes if any(k.get(name) for k in tree.images.values())]
    if len(filled) < fewest:
        raise InputError(f"{root} has {_found(root, tree, filled)}")
    return dataset_of_tree("folder", root, tree, filled, filled)


def _found(root: Path, tree: Tree, filled: list[str]) -> str:
    """What there is in place of two classes, and what to do about it."""
    found = f"images of {filled[0]!r} only" if filled else "no images in class folders"
    here = sorted(path for path in root.iterdir() if path.is_file() and path.name[0] != ".")
    loose = (
        f", but {counted(tree.loose, 'image')} in no folder" if tree.loose and not filled else ""
    )
    passed = ""
    if tree.ignored:
        kinds = ", ".join(f"{n:,} {suffix}" for suffix, n in tree.ignored.most_common(5))
        one = sum(tree.ignored.values()) == 1
        be, them = ("is", "it") if one else ("are", "them")
        passed = f"; it has {kinds}, which {be} not read: convert or rename {them}"
        if ".json" in tree.ignored and filled:  # as FiftyOne and COCO write them
            passed = (
                f"; it has {kinds}: labels in a .json file are not read: write a table of paths "
                "and labels (--data csv), or export the images in class folders"
            )
    return (
        f"{found}{loose}: give a folder with two or more folders, one for each class, "
        f"such as cat/1.jpg and dog/2.jpg, perhaps inside train/ and test/{passed}{advice(here)}"
    )


def _shown(folder: Path, root: Path) -> str:
    return folder.relative_to(root).as_posix()


def list_tree(root: Path, folders: Mapping[str, Path]) -> Tree:
    """Lists all images in class folders.

    Args:
        root: folder that names are relative to.
        folders: split -> folder that holds its class folders.
    """
    tree = Tree(places={split: _shown(folder, root) for split, folder in folders.items()})
    above = [folder.parent for folder in folders.values() if folder != root]
    for place in dict.fromkeys((root, *above, *folders.values())):
        _count_beside(place, tree)
    for split in ("train", "val", "test", "all"):
        if split in folders:
            tree.images[split] = {
                kind.name: sorted(list_images(root, kind, tree.ignored))
                for kind in subfolders(folders[split])
            }
    return tree


def _count_beside(place: Path, tree: Tree) -> None:
    """Counts the files that lie beside class folders."""
    for file in sorted(place.iterdir()):
        if is_image(file):
            tree.loose += 1
        elif is_visible(file) and file.is_file():
            tree.ignored[file.suffix.lower() or "without a suffix"] += 1


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
    places = {split: f"{place}/" for split, place in tree.places.items() if place != "."}
    return make_dataset(
        name, listing, store, classes, tree.notes(), Origin("the names of the folders", places)
    )
