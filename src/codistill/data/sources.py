"""Finds a data set by name, in whatever form it is kept."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from codistill.data.cache import cache_file, cache_folder, fingerprint, load_cached, save_cached
from codistill.data.cifar import CIFARS, Cifar, read_archive, read_extracted
from codistill.data.dataset import Dataset, Split
from codistill.data.digits import read_digits
from codistill.data.download import download
from codistill.data.folders import list_class_folders, read_class_folders
from codistill.data.parquet import list_shards, read_shards
from codistill.errors import InputError, did_you_mean
from codistill.names import DATASETS

Decoded = tuple[Split, Split, tuple[str, ...]]  # train, test, class names


class Source(NamedTuple):
    """The files of one form, and what turns them into a data set."""

    files: list[Path]
    decode: Callable[[], Decoded]


def load_dataset(name: str, root: str | Path | None = None) -> Dataset:
    """The data set, decoded; from the cache where it has been decoded before.

    Args:
        name: one of `DATASETS`.
        root: where it is kept: the published archive, what is in it, one folder per class, or
            parquet files. None downloads the archive.
    """
    if name not in DATASETS:
        raise InputError(f"no data set is called {name!r}: {did_you_mean(name, DATASETS)}")
    if name == "digits":
        if root is not None:
            raise InputError("digits comes with scikit-learn: leave out --data.root")
        return _dataset(name, read_digits())
    cifar = CIFARS[name]
    if root is None:
        place = download(cifar.url, cache_folder() / cifar.archive, cifar.md5)
    else:
        place = Path(root).expanduser().resolve()
    try:
        return _read(name, place)
    except OSError as error:
        where = error.filename or place
        raise InputError(f"{where} cannot be read: {error.strerror or error}") from error


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
    if not root.is_dir():
        raise InputError(f"{root} does not exist: give an existing file or folder by --data.root")
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
