"""ImageNet, Tiny ImageNet and CINIC-10 as their authors publish them; CIFAR in class folders."""

import csv
import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from codistill.data.encoded import EncodedDataset
from codistill.data.readers.class_folders import Tree, dataset_of_tree, list_tree
from codistill.data.readers.folders import list_images, subfolders
from codistill.errors import InputError
from codistill.files import read_text
from codistill.names import DATASETS


def list_imagenet(root: Path) -> EncodedDataset:
    """ILSVRC 2012: train/WNID/, and val/ with class folders or flat. Its val is the test split."""
    base = _base(root, "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")
    val = _folder(base, "val")
    tree = list_tree(base, {"train": base / "train"})
    kinds = _checked(tree, "imagenet", base)
    places = (root, base, *base.parents[:3])  # LOC_*.csv lies beside ILSVRC/
    if subfolders(val):
        tree.images["val"] = list_tree(base, {"val": val}).images["val"]
    else:
        listing = _find(places, "LOC_val_solution.csv")
        if listing is None:
            raise InputError(
                f"{val} has no class folders: put LOC_val_solution.csv into {root}, or sort the "
                "images into one folder per class"
            )
        of = _read_solution(listing)
        tree.images["val"] = _sorted_by(of, base, val, listing, tree.ignored)
    _refuse_unknown(tree, kinds, val)
    names = _class_names(_find(places, "LOC_synset_mapping.txt"), kinds, " ")
    return dataset_of_tree("imagenet", base, tree, kinds, names)


def list_tiny_imagenet(root: Path) -> EncodedDataset:
    """200 classes, 64 x 64. Its val is the test split, because its test images have no labels."""
    base = _base(root, "tiny-imagenet-200")
    val = _folder(base, "val")
    tree = list_tree(base, {"train": base / "train"})
    kinds = _checked(tree, "tiny_imagenet", base)
    listing = val / "val_annotations.txt"
    if listing.is_file() and (val / "images").is_dir():
        rows = [line.split("\t") for line in read_text(listing).splitlines() if line.strip()]
        if any(len(row) < 2 for row in rows):
            raise InputError(f"{listing} is not as published: a file, a tab, its class, ...")
        of = {Path(row[0]).stem: row[1] for row in rows}
        tree.images["val"] = _sorted_by(of, base, val / "images", listing, tree.ignored)
    else:
        tree.images["val"] = list_tree(base, {"val": val}).images["val"]
    tree.ignored.clear()  # files of boxes, published beside the images
    _refuse_unknown(tree, kinds, val)
    names = _class_names(_find([base], "words.txt"), kinds, "\t")
    return dataset_of_tree("tiny_imagenet", base, tree, kinds, names)


def list_cinic10(root: Path) -> EncodedDataset:
    """10 classes, 32 x 32, 90,000 images each in train/, valid/ and test/."""
    if root.is_file():
        raise InputError(f"{root} is a file: extract the archive, and give the folder")
    base = _base(root, "CINIC-10", "cinic-10", "CINIC10", "cinic10")
    folders = {
        "train": base / "train",
        "val": _folder(base, "valid"),
        "test": _folder(base, "test"),
    }
    tree = list_tree(base, folders)
    kinds = _checked(tree, "cinic10", base)
    _refuse_unknown(tree, kinds, base)
    return dataset_of_tree("cinic10", base, tree, kinds, kinds)


def list_cifar(name: str, root: Path) -> EncodedDataset:
    """CIFAR as class folders in train/ and test/, or else val/ or valid/."""
    folders = (root / split for split in ("test", "val", "valid"))
    test = next((folder for folder in folders if folder.is_dir()), None)
    if test is None:
        raise InputError(f"{root} has a folder train/ but neither test/ nor val/")
    tree = list_tree(root, {"train": root / "train", "test": test})
    kinds = _checked(tree, name, root)
    _refuse_unknown(tree, kinds, test)
    return dataset_of_tree(name, root, tree, kinds, kinds)


def _base(root: Path, *inside: str) -> Path:
    """The folder that holds train/: root, or one of these folders inside root."""
    for folder in (root, *(root / name for name in inside)):
        if (folder / "train").is_dir():
            return folder
    raise InputError(f"{root} has no folder train/: give the folder that holds it")


def _folder(base: Path, name: str) -> Path:
    if not (base / name).is_dir():
        raise InputError(f"{base} has no folder {name}/")
    return base / name


def _checked(tree: Tree, name: str, base: Path) -> list[str]:
    """The classes of the training images. Raises InputError if there are too few or too many."""
    kinds, expected = sorted(tree.images["train"]), DATASETS[name].num_classes
    if len(kinds) != expected:
        raise InputError(
            f"{base / 'train'} has {len(kinds)} class folders, but {name} has {expected}: give a "
            "part of it, sorted into class folders, as --data folder"
        )
    return kinds


def _refuse_unknown(tree: Tree, kinds: list[str], where: Path) -> None:
    unknown = [kind for kind in tree.classes if kind not in set(kinds)]
    if unknown:
        raise InputError(f"{where} has the class {unknown[0]!r}, which is not in train/")


def _read_solution(listing: Path) -> dict[str, str]:
    """Image -> class, from LOC_val_solution.csv, which has boxes behind the class."""
    text = read_text(listing)
    try:
        rows = list(csv.DictReader(io.StringIO(text)))
        return {row["ImageId"]: row["PredictionString"].split()[0] for row in rows}
    except (KeyError, IndexError, AttributeError, csv.Error) as error:
        raise InputError(
            f"{listing} is not as published: it needs the columns ImageId and PredictionString"
        ) from error


def _sorted_by(
    of: dict[str, str], base: Path, folder: Path, listing: Path, ignored: Counter[str]
) -> dict[str, list[tuple[str, int]]]:
    """The images of a flat folder by class. A listing gives the class of each file's stem."""
    kinds: dict[str, list[tuple[str, int]]] = {}
    for name, size in sorted(list_images(base, folder, ignored)):
        kind = of.get(Path(name).stem)
        if kind is None:
            raise InputError(f"{listing} has no class for {base / name}")
        kinds.setdefault(kind, []).append((name, size))
    return {kind: kinds[kind] for kind in sorted(kinds)}


def _find(places: Iterable[Path], name: str) -> Path | None:
    return next((place / name for place in places if (place / name).is_file()), None)


def _class_names(file: Path | None, kinds: list[str], separator: str) -> list[str]:
    """The classes' names; names that occur twice get the folder's name added."""
    if file is None:
        return kinds
    rows = (line.partition(separator) for line in read_text(file).splitlines())
    known = {kind: names.strip() for kind, _, names in rows if names.strip()}
    names = [known.get(kind, kind) for kind in kinds]
    twice = {name for name, count in Counter(names).items() if count > 1}
    return [f"{n} ({k})" if n in twice else n for n, k in zip(names, kinds, strict=True)]
