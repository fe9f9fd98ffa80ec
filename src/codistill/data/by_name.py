"""Data sets by name, in whatever form they are kept: decoded into memory, or opened."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from codistill.data.dataset import Dataset, Split
from codistill.data.encoded import EncodedDataset, Files
from codistill.data.readers.cache import cache_file, fingerprint, load_cached, save_cached
from codistill.data.readers.cifar import CIFARS, Cifar, read_archive, read_extracted
from codistill.data.readers.class_folders import list_folder
from codistill.data.readers.columns import Columns
from codistill.data.readers.csv_table import list_csv
from codistill.data.readers.decode import decode_images
from codistill.data.readers.digits import read_digits
from codistill.data.readers.download import download
from codistill.data.readers.hub import list_hub
from codistill.data.readers.parquet import find_shards, list_parquet, read_shards
from codistill.data.readers.published import (
    list_cifar,
    list_cinic10,
    list_imagenet,
    list_tiny_imagenet,
)
from codistill.data.readers.splits import SplitNames
from codistill.data.readers.tars import list_tars
from codistill.errors import InputError, did_you_mean
from codistill.files import cache_folder, place_of
from codistill.names import DATASETS

# Class folders of small images of one size, which are decoded into memory.
_SMALL = {"cinic10": list_cinic10, "tiny_imagenet": list_tiny_imagenet}
IN_MEMORY = frozenset({"digits", *CIFARS, *_SMALL})

# Class folders, and those whose layout is published.
_PUBLISHED: dict[str, Callable[[Path], EncodedDataset]] = {"imagenet": list_imagenet, **_SMALL}
_LISTED = ("folder", "csv", "webdataset", "parquet", "hub", *_PUBLISHED)


class _Source(NamedTuple):
    """The files of one form, and the function that turns them into a data set."""

    files: list[Path]
    decode: Callable[[], Dataset]


def load_dataset(name: str, root: str | Path | None = None) -> Dataset:
    """The data set, decoded. It comes from the cache if it has been decoded before.

    Args:
        name: one of `IN_MEMORY`.
        root: path of the published archive, of the files extracted from it, of class folders, or of
            a folder of parquet files. None downloads CIFAR's archive.

    Raises:
        InputError: there is no such data set, or it cannot be read.
    """
    check_name(name)
    if name not in IN_MEMORY:
        raise InputError(
            f"{name} is not held in memory: codistill.data.open_dataset opens it, and "
            "StreamedTrainBatches reads it"
        )
    if name == "digits":
        if root is not None:
            raise InputError("digits comes with scikit-learn: leave out --data.root")
        return _dataset(name, *read_digits())
    if root is not None:
        place = place_of(root).resolve()
    elif name in CIFARS:
        cifar = CIFARS[name]
        place = download(cifar.url, cache_folder() / cifar.archive, cifar.md5)
    else:
        raise InputError(f"{name} is not downloaded: give its folder by --data.root")
    try:
        return _load(name, place)
    except OSError as error:
        where = error.filename or place
        raise InputError(f"{where} cannot be read: {error.strerror or error}") from error


def open_dataset(
    name: str,
    root: str | Path | None,
    label_column: str | None = None,
    image_column: str | None = None,
    splits: str | None = None,
    bits: int | None = None,
    fewest: int = 2,
) -> EncodedDataset:
    """The data set, its images still encoded.

    Args:
        name: "folder", "csv", "parquet", "hub", "webdataset", "imagenet", "tiny_imagenet" or
            "cinic10".
        root: folder of the data set; for "parquet" also a pattern such as "shards/*.parquet"; for
            "csv" the table; for "hub" also the name of a data set, with a configuration after a
            colon.
        label_column: column of labels, for tables; for "webdataset" the suffix of the files of
            labels, or a key of JSON files. Default: found by name and type.
        image_column: column of images or paths, for tables. Default: found by name and type.
        splits: names of folders, files or values that are splits, as in "train=a,test=b"; "none":
            nothing is divided. Default: found by name.
        bits: bits of a pixel that 16-bit images use. Default: 16.
        fewest: number of classes that there have to be.

    Raises:
        InputError: there is no such data set, it cannot be read, or it can be read in two ways.
    """
    check_name(name)
    if name not in _LISTED:
        raise InputError(f"{name} is held in memory: there are no files of images to list")
    if root is None:
        raise InputError(f"data set {name!r} needs a place: give it by --data.root")
    for option, value in (("label_column", label_column), ("image_column", image_column)):
        if value is not None and name not in _TABLES.get(option, ()):
            raise InputError(f"data.{option} is for tables, and {name} is none: leave it out")
    if splits is not None and name in _PUBLISHED:
        raise InputError(f"data.splits is not for {name}, whose splits are published: leave it out")
    columns, names = Columns(label_column, image_column), SplitNames.parse(splits)
    dataset = _opened(name, root, columns, names, fewest)
    if bits is not None:
        taken = {split: replace(part, bits=bits) for split, part in dataset.splits.items()}
        dataset = replace(dataset, splits=taken)
    return dataset


_TABLES = {
    "label_column": ("csv", "parquet", "hub", "webdataset"),
    "image_column": ("csv", "parquet", "hub"),
}  # option -> the data sets that it is for


def _opened(
    name: str, root: str | Path, columns: Columns, names: SplitNames, fewest: int
) -> EncodedDataset:
    if name == "hub":
        return list_hub(str(root), columns, names)
    place = place_of(root)
    try:
        if name == "parquet":
            return list_parquet(place.absolute(), columns, names)
        place = _existing(place).absolute()
        if name == "folder":
            return list_folder(place, names, fewest)
        if name == "csv":
            return list_csv(place, columns, names, fewest)
        if name == "webdataset":
            return list_tars(place, names, columns.label)
        return _PUBLISHED[name](place)
    except OSError as error:
        where = error.filename or place
        raise InputError(f"{where} cannot be read: {error.strerror or error}") from error


def check_name(name: str) -> None:
    """Raises InputError, with the nearest name, if no data set has this one."""
    if name not in DATASETS:
        raise InputError(f"no data set is called {name!r}: {did_you_mean(name, DATASETS)}")


def _existing(root: Path) -> Path:
    if not root.exists():
        raise InputError(f"{root} does not exist: give an existing file or folder by --data.root")
    return root


def _load(name: str, root: Path) -> Dataset:
    _existing(root)
    source = _files(_SMALL[name](root)) if name in _SMALL else _find_cifar(name, root)
    kept = cache_file(name, source.files)
    dataset = load_cached(kept)
    if dataset is None:
        dataset = source.decode()
        found, expected = len(dataset.classes), DATASETS[name].num_classes
        if found != expected:
            raise InputError(f"{root} has {found} classes, but {name} has {expected}")
        for split in ("train", "test"):
            if not len(dataset.splits[split]):
                raise InputError(f"{root} has no {split} images")
        save_cached(kept, dataset)
    return dataset


def _find_cifar(name: str, root: Path) -> _Source:
    """Finds out which of the accepted forms root is."""
    cifar = CIFARS[name]
    archive = root if root.is_file() else root / cifar.archive
    if root.is_dir() and (files := _extracted_files(cifar, root)):
        return _Source(files, lambda: _dataset(name, *read_extracted(cifar, files)))
    if archive.is_file():
        return _Source([archive], lambda: _dataset(name, *read_archive(cifar, archive)))
    if shards := find_shards(root, name):
        tables = [file for split in shards.values() for file in split]
        decode = lambda: _decode(read_shards(name, shards, cifar.columns), tables[0].parent)  # noqa: E731
        return _Source(tables, decode)
    if (root / "train").is_dir():
        return _files(list_cifar(name, root))
    raise InputError(
        f"{root} holds no {name} in a form that is known: {cifar.archive}, {cifar.folder}/, "
        "train-*.parquet with test-*.parquet, or train/<class>/ with test/<class>/"
    )


def _extracted_files(cifar: Cifar, root: Path) -> list[Path]:
    for folder in (root, root / cifar.folder):
        files = [folder / member for member in cifar.members]
        absent = [file for file in files if not file.is_file()]
        if len(absent) < len(files):
            if absent:
                raise InputError(f"{absent[0]} is missing: extract {cifar.archive} again")
            return files
    return []


def _files(listed: EncodedDataset) -> _Source:
    """The source of a data set with one file for each image."""
    root, paths = Path(), []
    for part in listed.splits.values():
        assert isinstance(part.store, Files)
        root = Path(part.store.root)
        paths += [root / part.name(i) for i in range(len(part))]
    return _Source(paths, lambda: _decode(listed, root))


def _decode(listed: EncodedDataset, root: Path) -> Dataset:
    """Decodes a data set of small images. Their names are relative to root."""
    size = DATASETS[listed.name].image_size
    assert size is not None
    splits = {
        name: Split(decode_images(part, size[0], listed.name, root), part.labels)
        for name, part in listed.splits.items()
    }
    if "test" not in splits and "val" in splits:  # Tiny ImageNet reports on its val
        splits["test"] = splits.pop("val")
    empty = Split(torch.empty(0, *size, 3, dtype=torch.uint8), torch.empty(0, dtype=torch.int64))
    train, test = splits.get("train", empty), splits.get("test", empty)
    return _dataset(listed.name, train, test, listed.classes, splits.get("val"))


def _dataset(
    name: str, train: Split, test: Split, classes: tuple[str, ...], val: Split | None = None
) -> Dataset:
    return Dataset(name, train, test, classes, fingerprint(train, test, val), val)
