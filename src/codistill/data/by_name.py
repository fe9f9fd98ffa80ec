"""Data sets by name, in whatever form they are kept: decoded into memory, or opened."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from codistill.data.dataset import Dataset, Split
from codistill.data.encoded import EncodedDataset, Files
from codistill.data.readers.cache import cache_file, fingerprint, load_cached, save_cached
from codistill.data.readers.cifar import CIFARS, Cifar, read_archive, read_extracted
from codistill.data.readers.cifar_folders import list_class_folders, read_class_folders
from codistill.data.readers.cifar_parquet import list_shards, read_shards
from codistill.data.readers.class_folders import list_folder
from codistill.data.readers.decode import decode_images
from codistill.data.readers.digits import read_digits
from codistill.data.readers.download import download
from codistill.data.readers.hub import list_hub
from codistill.data.readers.parquet import list_parquet
from codistill.data.readers.published import list_cinic10, list_imagenet, list_tiny_imagenet
from codistill.data.readers.tars import list_tars
from codistill.errors import InputError, did_you_mean
from codistill.files import cache_folder
from codistill.names import DATASETS

Decoded = tuple[Split, Split, tuple[str, ...]]  # train, test, class names

# Those of class folders that are small and of one size, and what lists their files.
SMALL = {"cinic10": list_cinic10, "tiny_imagenet": list_tiny_imagenet}
IN_MEMORY = frozenset({"digits", *CIFARS, *SMALL})

_LISTINGS: dict[str, Callable[[Path], EncodedDataset]] = {
    "folder": list_folder,
    "imagenet": list_imagenet,
    "webdataset": list_tars,
    **SMALL,  # for who looks at them file by file
}


class Source(NamedTuple):
    """The files of one form, and what turns them into a data set."""

    files: list[Path]
    decode: Callable[[], Decoded]


def load_dataset(name: str, root: str | Path | None = None) -> Dataset:
    """The data set, decoded; from the cache where it has been decoded before.

    Args:
        name: one of `IN_MEMORY`.
        root: where it is kept: the published archive, what is in it, one folder per class, or
            parquet files. None downloads CIFAR's archive.
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
        return _dataset(name, read_digits())
    if root is not None:
        place = Path(root).expanduser().resolve()
    elif name in CIFARS:
        cifar = CIFARS[name]
        place = download(cifar.url, cache_folder() / cifar.archive, cifar.md5)
    else:
        raise InputError(f"{name} is not downloaded: give the folder that it is in by --data.root")
    try:
        return _read_small(name, place) if name in SMALL else _read(name, place)
    except OSError as error:
        where = error.filename or place
        raise InputError(f"{where} cannot be read: {error.strerror or error}") from error


def open_dataset(
    name: str, root: str | Path | None, label_column: str | None = None
) -> EncodedDataset:
    """The data set with its images still encoded.

    Args:
        name: "folder", "imagenet", "tiny_imagenet", "cinic10", "parquet", "hub" or "webdataset".
        root: where it is: a folder; for "parquet" also a pattern such as "shards/*.parquet"; for
            "hub" also the name of a data set, with a configuration after a colon.
        label_column: of "parquet" and "hub". Default: found by its name and type.
    """
    check_name(name)
    if name not in (*_LISTINGS, "parquet", "hub"):
        raise InputError(f"{name} is held in memory: there are no files of images to list")
    if root is None:
        raise InputError(f"data set {name!r} needs a place: give it by --data.root")
    if label_column is not None and name in _LISTINGS:
        raise InputError(f"data.label_column is for tables, and {name} is none: leave it out")
    if name == "hub":
        return list_hub(str(root), label_column)
    place = Path(root).expanduser()
    try:
        if name == "parquet":
            return list_parquet(place.absolute(), label_column)
        return _LISTINGS[name](existing(place).absolute())
    except OSError as error:
        where = error.filename or place
        raise InputError(f"{where} cannot be read: {error.strerror or error}") from error


def check_name(name: str) -> None:
    """Raises InputError, with the nearest, where no data set is called that."""
    if name not in DATASETS:
        raise InputError(f"no data set is called {name!r}: {did_you_mean(name, DATASETS)}")


def existing(root: Path) -> Path:
    """The folder or file, if it exists."""
    if not root.exists():
        raise InputError(f"{root} does not exist: give an existing file or folder by --data.root")
    return root


def _read_small(name: str, root: Path) -> Dataset:
    listed = SMALL[name](existing(root))
    store = next(iter(listed.splits.values())).store
    assert isinstance(store, Files)
    paths = [Path(store.path(i)) for i in range(len(store))]
    kept = cache_file(name, paths)
    dataset = load_cached(kept)
    if dataset is None:
        dataset = _decode_small(name, listed, paths)
        save_cached(kept, dataset)
    return dataset


def _decode_small(name: str, listed: EncodedDataset, paths: list[Path]) -> Dataset:
    size = DATASETS[name].image_size
    assert size is not None
    splits = {}
    for split, part in listed.splits.items():
        files = [paths[i] for i in part.index]
        pixels = decode_images(files, lambda i, files=files: str(files[i]), size[0], name)
        splits[split] = Split(pixels, part.labels)
    if "test" not in splits:  # Tiny ImageNet's val is what is reported
        splits["test"] = splits.pop("val")
    train, test, val = splits["train"], splits["test"], splits.get("val")
    return Dataset(name, train, test, listed.classes, fingerprint(train, test, val), val)


def _read(name: str, place: Path) -> Dataset:
    source = find_source(name, place)
    kept = cache_file(name, source.files)
    dataset = load_cached(kept)
    if dataset is None:
        decoded = source.decode()
        _check(name, decoded, CIFARS[name].classes, place)
        dataset = _dataset(name, decoded)
        save_cached(kept, dataset)
    return dataset


def find_source(name: str, root: Path) -> Source:
    """Which of the accepted forms root is."""
    cifar = CIFARS[name]
    if root.is_file():
        return Source([root], lambda: read_archive(cifar, root))
    existing(root)
    if files := _extracted_files(cifar, root):
        return Source(files, lambda: read_extracted(cifar, files))
    archive = root / cifar.archive
    if archive.is_file():
        return Source([archive], lambda: read_archive(cifar, archive))
    if shards := list_shards(root, name):
        return Source([*shards[0], *shards[1]], lambda: read_shards(cifar, *shards))
    if listings := list_class_folders(root):
        images = [file for listing in listings for kind in listing.values() for file in kind]
        return Source(images, lambda: read_class_folders(*listings))
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


def _check(name: str, decoded: Decoded, expected: int, root: Path) -> None:
    train, test, classes = decoded
    if len(classes) != expected:
        raise InputError(f"{root} has {len(classes)} classes, but {name} has {expected}")
    for split, what in ((train, "train"), (test, "test")):
        if len(split) == 0:
            raise InputError(f"{root} has no {what} images")


def _dataset(name: str, decoded: Decoded) -> Dataset:
    train, test, classes = decoded
    return Dataset(name, train, test, classes, fingerprint(train, test))
