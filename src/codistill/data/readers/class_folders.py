"""Class folders of images, perhaps inside folders for the splits."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from codistill.data.encoded import EncodedDataset, Files, Listed, Origin, Packed, make_dataset
from codistill.data.readers.decode import SUFFIXES
from codistill.data.readers.splits import NONE, OPTION, SplitNames, is_split_name, split_of
from codistill.errors import InputError
from codistill.messages import shorten

_NOT_OURS = {"__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN"}  # made by systems, not by people
_WRAPPERS = {"images", "image", "imgs", "data", "photos", "classes"}  # say nothing about a class
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")
_TABLES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "csv",
    ".parquet": "parquet",
    ".arrow": "hub",
    ".tar": "webdataset",
}  # suffix -> the data set that reads such files


@dataclass
class Tree:
    """The contents of class folders.

    Attributes:
        images: split -> class -> name relative to the root and size in bytes, in order.
        ignored: number of files by suffix, for suffixes that no image has.
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
        for folder, count in self.unlabelled.items():
            yield (
                f"{folder}/ has {_images(count)} but no class folders, so they have no labels and "
                "are not used"
                if count
                else f"{folder}/ has no images, and is not used"
            )
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
            unused = [f"{name}/ ({_images(count)})" for name, count in self.unused.items()]
            yield f"folders beside those of the splits, which are not used: {shorten(unused)}"


def _images(count: int) -> str:
    return f"{count:,} image" + "s" * (count != 1)


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
        raise InputError(f"{root} is a file{_advice([root])}: a folder of class folders is needed")
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
    loose = f", but {_images(tree.loose)} in no folder" if tree.loose and not filled else ""
    passed = ""
    if tree.ignored:
        kinds = ", ".join(f"{n:,} {suffix}" for suffix, n in tree.ignored.most_common(5))
        passed = f"; it has {kinds}, which are not read: convert or rename them"
    return (
        f"{found}{loose}: give a folder with two or more folders, one for each class, "
        f"such as cat/1.jpg and dog/2.jpg, perhaps inside train/ and test/{passed}{_advice(here)}"
    )


def _advice(files: list[Path]) -> str:
    """What to do with archives and tables that lie where class folders should."""
    archives = [file.name for file in files if file.suffix.lower() in _ARCHIVES]
    tables = [file for file in files if file.suffix.lower() in _TABLES]
    advice = f"; unpack {shorten(archives)} first" if archives else ""
    if tables:
        kind = _TABLES[tables[0].suffix.lower()]
        advice += f"; {tables[0].name} is read by --data {kind} --data.root {tables[0]}"
    return advice


@dataclass(frozen=True)
class Layout:
    """The folders of a data set, each with its meaning.

    Attributes:
        folders: split -> folder of its class folders; {"all": ...} if the images are not divided.
        unlabelled: name of a split's folder without class folders -> number of its images.
        beside: name of another folder with images -> their number.
    """

    folders: dict[str, Path]
    unlabelled: dict[str, int] = field(default_factory=dict)
    beside: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Look:
    """A folder at first sight.

    Attributes:
        place: the folder, or the one inside it that holds all it has.
        direct: whether images lie in it.
        kinds: names of the folders inside it that have images.
    """

    place: Path
    direct: bool
    kinds: frozenset[str]

    @classmethod
    def at(cls, folder: Path) -> "_Look":
        place = _inner(folder)
        inside = subfolders(place)
        return cls(place, _has_images(place), frozenset(f.name for f in inside if _filled(f)))


def find_layout(root: Path, names: SplitNames) -> Layout:
    """Finds out which folders are splits, and which are classes.

    A folder is that of a split if its name says so and it has folders with images. Where folders
    can be splits as well as classes, the user decides.

    Raises:
        InputError: what there is can be read in two ways, or not at all.
    """
    base = root if names.given is not None else _unwrapped(root)
    inside = subfolders(base)
    looks = {folder: _Look.at(folder) for folder in inside}
    if names.given is not None:
        names.require([folder.name for folder in inside], f"{root}")
    if names.given == {}:
        return Layout({"all": base})

    found: dict[str, Path] = {}
    for folder, look in looks.items():
        split = names.of(folder.name)
        empty = not look.direct and is_split_name(folder.name)
        if not split or not (look.kinds or empty or names.given):
            continue
        if names.given and not look.kinds:
            raise InputError(
                f"data.splits names {folder.name!r}, and {folder} has no class folders with images"
            )
        if split in found:
            raise InputError(
                f"{base} has both {found[split].name}/ and {folder.name}/, and each may be "
                f"{split}: remove or rename one of them, or say which, such as {OPTION} "
                f"{_say({'train': found.get('train', folder)} | {split: folder})}"
            )
        found[split] = folder
    if "train" not in found:
        _refuse_two_readings(base, looks, found)
        return Layout({"all": base})

    train = looks[found["train"]]
    beside = [folder for folder in inside if folder not in found.values()]
    other = [f for f in beside if looks[f].direct and not split_of(f.name)]
    if not subfolders(train.place):
        if len(found) == 1 and len(inside) > 1 and not names.given:
            return Layout({"all": base})  # a class of trains among other classes
        raise InputError(
            f"{found['train']} has no folders in it: sort the images into one folder per class"
            + _listing_advice(base)
        )
    if len(found) == 1 and other and not names.given:
        raise InputError(
            f"{base} has images in {shorten([f.name for f in other])} beside "
            f"{found['train'].name}/, which has folders of its own: give {OPTION} {NONE} if "
            f"{found['train'].name} is a class like these, or {OPTION} {_say(found)} to leave "
            "them out"
        )
    without = [
        folder
        for folder in inside
        if not looks[folder].kinds
        and (folder in found.values() or (not names.given and split_of(folder.name)))
    ]
    folders = {s: looks[folder].place for s, folder in found.items() if folder not in without}
    rest = {f.name: _count(f) for f in beside if f not in without}
    return Layout(
        {"all": folders["train"]} if len(folders) == 1 else folders,
        {folder.name: _count(folder) for folder in without},
        {name: count for name, count in rest.items() if count},
    )


def _refuse_two_readings(base: Path, looks: dict[Path, _Look], found: dict[str, Path]) -> None:
    """Raises InputError if the folders may be classes, and may be something else as well."""
    inside = list(looks)
    if found:
        others = " and ".join(f"{folder.name}/" for folder in found.values())
        first = next((f for f in inside if f not in found.values()), base / "NAME")
        raise InputError(
            f"{base} has {others} but no train/: name the folder to train on, such as {OPTION} "
            f"{_say({'train': first} | found)}, or give {OPTION} {NONE} if all folders are classes"
        )
    flat = {f: split_of(f.name) for f, look in looks.items() if look.direct}
    whole = {split for f, split in flat.items() if split and is_split_name(f.name)}
    if len(whole) > 1 or (all(flat.values()) and len({*flat.values()}) > 1):
        named = [f"{f.name}/" for f, split in flat.items() if split]
        raise InputError(
            f"{base} has images in {' and '.join(named)} but no class folders in them: sort the "
            f"images into one folder per class, or give {OPTION} {NONE} if these are the classes"
            + _listing_advice(base)
        )
    if whole - {"train"}:
        (name,) = [f.name for f, split in flat.items() if split in whole and is_split_name(f.name)]
        raise InputError(
            f"{base} has images in {name}/ beside folders that may be classes: give {OPTION} "
            f"{NONE} if {name} is a class too, or move {name}/ elsewhere if its images are to be "
            f"tested on: without class folders they have no labels"
        )
    plain = {f: look.kinds for f, look in looks.items() if not look.direct and look.kinds}
    for first, kinds in plain.items():
        alike = [f for f in plain if len(plain[f] & kinds) > 1]
        if len(alike) < 2:
            continue
        shared = sorted(frozenset.intersection(*(plain[f] for f in alike)) or kinds)
        shown = shorten([f"{f.name}/" for f in alike])
        inner = " and ".join(f"{name}/" for name in shared[:3])
        if len({split_of(name) for name in shared} - {""}) > 1:
            raise InputError(
                f"{base} has {inner} inside each of {shown}: put the splits outside, as in "
                f"{shared[0]}/{first.name}/, or list the images in a table (--data csv), or give "
                f"{OPTION} {NONE} to take all images of {first.name}/ for one class undivided"
            )
        raise InputError(
            f"{base} has folders {shown} with the same folders inside, {inner}: if they are "
            f"splits, say which, such as {OPTION} {_say({'train': alike[0], 'test': alike[1]})}; "
            f"if they are the classes, give {OPTION} {NONE}"
        )


def _say(found: Mapping[str, Path]) -> str:
    """The option's value that names these folders."""
    return ",".join(f"{split}={folder.name}" for split, folder in found.items())


def _listing_advice(base: Path) -> str:
    """Where a table of labels lies beside images: how to use it."""
    files = sorted(base.iterdir())
    tables = [f for f in files if f.is_file() and _TABLES.get(f.suffix.lower()) == "csv"]
    return _advice(tables[:1])


def _unwrapped(root: Path) -> Path:
    """The folder inside folders that have nothing else, as archives make them."""
    base, seen = root, {root.resolve()}
    while not _has_images(base):
        inside = subfolders(base)
        if len(inside) != 1 or (look := inside[0].resolve()) in seen or _has_images(inside[0]):
            break
        if split_of(inside[0].name) not in ("", "train") or not subfolders(inside[0]):
            break
        seen.add(look)
        base = inside[0]
    return base


def _inner(folder: Path) -> Path:
    """The folder inside one of a split, where archives repeat its name: train/train/."""
    place, seen = folder, {folder.resolve()}
    while not _has_images(place):
        inside = subfolders(place)
        if len(inside) != 1 or (look := inside[0].resolve()) in seen:
            break
        name, above = inside[0].name.casefold(), folder.name.casefold()
        split = split_of(name)
        if not (name == above or name in _WRAPPERS or (split and split == split_of(above))):
            break
        if name in _WRAPPERS and not subfolders(inside[0]):
            break
        seen.add(look)
        place = inside[0]
    return place


def _filled(folder: Path) -> bool:
    """Whether a folder has an image, at any depth."""
    return next(list_images(folder.parent, folder, Counter()), None) is not None


def _count(folder: Path) -> int:
    return sum(1 for _ in list_images(folder.parent, folder, Counter()))


def _shown(folder: Path, root: Path) -> str:
    return folder.relative_to(root).as_posix()


def list_tree(root: Path, folders: Mapping[str, Path]) -> Tree:
    """Lists all images in class folders.

    Args:
        root: folder that names are relative to.
        folders: split -> folder that holds its class folders.
    """
    tree = Tree(places={split: _shown(folder, root) for split, folder in folders.items()})
    places = {root, *folders.values()}
    tree.loose = sum(is_image(file) for place in places for file in place.iterdir())
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
            if entry.name.startswith(".") or entry.name in _NOT_OURS:
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


def is_image(file: Path) -> bool:
    """Whether a file has the suffix of an image, and is not hidden."""
    hidden = file.name.startswith(".")
    return not hidden and file.suffix.lower() in SUFFIXES and file.is_file()


def _has_images(folder: Path) -> bool:
    return any(map(is_image, folder.iterdir()))


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError:  # a link to nothing
        return 0


def subfolders(folder: Path) -> list[Path]:
    """The folders inside a folder, sorted, without hidden ones."""
    inside = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in inside if path.is_dir() and path.name not in _NOT_OURS)


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
