"""Which data set a word names: a folder, a file, a pattern, a name on the Hub or a known name."""

import glob
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from codistill.data.by_name import open_dataset
from codistill.data.readers.cifar import CIFARS
from codistill.data.readers.csv_table import SUFFIXES as TABLES
from codistill.data.readers.decode import SUFFIXES
from codistill.data.readers.folders import subfolders
from codistill.data.readers.index import files_below
from codistill.data.readers.layout import ARCHIVES
from codistill.data.readers.parquet import SUFFIXES as PARQUET
from codistill.data.readers.parquet import column_names
from codistill.errors import InputError, did_you_mean
from codistill.files import place_of
from codistill.names import DATASETS

FORMS = {
    "folder": "a folder of class folders",
    "csv": "a table of paths and labels",
    "parquet": "Parquet tables",
    "webdataset": "tars",
    "hub": "a data set of the Hugging Face Hub",
}
"""Forms of your own images, in the order in which they are looked for, in words."""

_SUFFIXES = {
    **dict.fromkeys(TABLES, "csv"),
    ".tar": "webdataset",
    **dict.fromkeys(PARQUET, "parquet"),
}
_MARKS = {  # files and folders that tell a published data set
    "tiny_imagenet": ("tiny-imagenet-200", "val/val_annotations.txt"),
    "cinic10": ("CINIC-10",),
    "imagenet": ("ILSVRC", "Data/CLS-LOC", "LOC_synset_mapping.txt", "LOC_val_solution.csv"),
    **{name: (cifar.archive, cifar.folder) for name, cifar in CIFARS.items()},
}
_OF_CIFAR100 = {"fine_label", "coarse_label"}  # columns on the Hub
_SAVED = ("state.json", "dataset_dict.json")  # as `datasets.save_to_disk` writes them
_DEEP = 3  # levels of folders that are looked at
_FEW = 20  # entries of each of these folders
_MOST = 2000  # folders


class Place(NamedTuple):
    """A data set by its name and place, as `--data` and `--data.root` give them."""

    name: str
    root: str | None


def recognise(word: str) -> Place:
    """The data set that a word of the command line names.

    Folders are looked at, and read only if they may be of several forms.

    Raises:
        InputError: the word names nothing, or what it names can be read in two ways, or not at all.
    """
    known = word in DATASETS and word not in FORMS
    path = place_of(word)
    if known and path.exists():
        raise InputError(
            f"{word} is the name of a data set and a folder or file here: give ./{word}, or --data "
            f"{word}"
        )
    if known:
        return Place(word, None)
    if path.is_dir():
        return _of_folder(word, path)
    if path.exists():
        return Place(_of_file(word, path), word)
    if glob.has_magic(word):
        return _of_pattern(word)
    owner, slash, name = word.partition("/")
    if slash and owner.strip(".~") and name and "/" not in name:
        return Place("hub", word)
    inside = path.parent.iterdir() if path.parent.is_dir() else ()
    near = [str(path.parent / p.name) for p in inside if p.is_dir() and p.name[0] != "."]
    names = [*near, *(name for name in DATASETS if name not in FORMS)]
    hint = did_you_mean(word, names)
    if not hint.startswith("did you mean"):
        hint = "give a folder, a file, or a name that codistill list data shows"
    raise InputError(f"{word} does not exist, and no data set is called so: {hint}")


def _of_file(word: str, path: Path) -> str:
    for name, cifar in CIFARS.items():
        if path.name == cifar.archive:
            return name
    suffix = path.suffix.lower()
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    if suffix in ARCHIVES:
        raise InputError(f"{word} is an archive: unpack it, and give its folder")
    what = "one image" if suffix in SUFFIXES else "a file of no known form"
    raise InputError(
        f"{word} is {what}: give a folder of class folders, a table (.csv, .parquet) or a tar"
    )


def _of_pattern(word: str) -> Place:
    files = [Path(file) for file in sorted(glob.glob(word, recursive=True))]
    kinds = {_SUFFIXES.get(file.suffix.lower()) for file in files}
    folders = {str(file.parent) for file in files}
    if kinds == {"parquet"}:
        return Place("parquet", word)
    one = kinds == {"webdataset"} and len(folders) == 1
    if one and len(files) == len([*files[0].parent.glob("*.tar")]):
        return Place("webdataset", folders.pop())
    raise InputError(
        f"{word} matches {len(files)} files: give a pattern of Parquet files in quotes, or a folder"
    )


def _of_folder(word: str, folder: Path) -> Place:
    if published := _published(folder):
        return Place(published, word)
    if any((folder / name).is_file() for name in _SAVED):
        return Place("hub", word)
    places = dict(_candidates(word, folder))
    if len(places) == 1:
        return next(iter(places.values()))
    if not places:
        raise InputError(
            f"{word} has no image and no table in it: give a folder with one folder for each class"
        )
    return _the_one_that_reads(word, places)


def _published(folder: Path) -> str | None:
    for name, marks in _MARKS.items():
        if any((folder / mark).exists() for mark in marks):
            return name
    for name, cifar in CIFARS.items():
        if all((folder / member).is_file() for member in cifar.members):
            return name
    return None


def _candidates(word: str, folder: Path) -> Iterator[tuple[str, Place]]:
    """The forms that a folder may have, by the suffixes of what lies in it."""
    here = [file for file in sorted(folder.iterdir()) if file.is_file() and file.name[0] != "."]
    deeper = {file.suffix.lower() for file in _some_files(folder)}
    tables = [file for file in here if _SUFFIXES.get(file.suffix.lower()) == "csv"]
    if deeper & {*SUFFIXES} or ({f.suffix.lower() for f in here} & {*SUFFIXES} and not tables):
        yield "folder", Place("folder", word)
    if tables:
        yield "csv", Place("csv", str(tables[0]) if len(tables) == 1 else word)
    found = {_SUFFIXES.get(suffix) for suffix in (*deeper, *(f.suffix.lower() for f in here))}
    if "parquet" in found:
        columns = column_names(files_below(folder, *PARQUET)[0])
        yield "parquet", Place("cifar100" if {*columns} >= _OF_CIFAR100 else "parquet", word)
    if "webdataset" in found:
        yield "webdataset", Place("webdataset", word)


def _some_files(folder: Path) -> Iterator[Path]:
    """The first files of folders inside a folder, level by level."""
    level = subfolders(folder)[:_MOST]
    for _ in range(_DEEP):
        inside: list[Path] = []
        for below in level:
            with os.scandir(below) as entries:
                for entry in itertools.islice(entries, _FEW):
                    if not entry.name.startswith(".") and entry.is_file():
                        yield Path(entry.path)
                    elif entry.is_dir() and len(inside) < _MOST:
                        inside.append(Path(entry.path))
        level = inside


def _the_one_that_reads(word: str, places: dict[str, Place]) -> Place:
    """The place of the only form in which a folder can be read."""
    read, refused = {}, []
    for form, place in places.items():
        try:
            read[form] = open_dataset(place.name, place.root)
        except InputError as error:
            refused.append(error)
    if not read:
        raise refused[0]
    if len(read) == 1:
        return places[next(iter(read))]
    ways = [
        f"as {FORMS[form]} ({sum(map(len, dataset.splits.values())):,} images, "
        f"{len(dataset.classes):,} classes) by "
        + (f"--data {form}" if places[form].root == word else f"{places[form].root} in its place")
        for form, dataset in read.items()
    ]
    raise InputError(f"{word} can be read {', or '.join(ways)}: say which")
