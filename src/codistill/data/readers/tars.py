"""Tar shards as `webdataset` reads them: the files of one image share a name up to the first dot.

The shards are indexed, not streamed: their headers are read once, and then every image is read from
its place. So images are shuffled over all shards instead of within a buffer, and an epoch can
resume at any image with any number of workers. The files must lie on a disk, not behind HTTP.
"""

import tarfile
from pathlib import Path

import numpy as np

from codistill.data.encoded import EncodedDataset
from codistill.data.readers.decode import SUFFIXES
from codistill.data.readers.index import (
    Index,
    index_key,
    indexed_dataset,
    kept_index,
    number_labels,
    splits_of,
)
from codistill.errors import InputError

_LABEL = ".cls"
_LABEL_LIMIT = 10_000  # bytes
_NAMES = "classnames.txt"


def list_tars(root: Path) -> EncodedDataset:
    """KEY.jpg and KEY.cls in *.tar. Class names come from classnames.txt, if it exists, one a line.

    Args:
        root: folder that holds tars at any depth, or one tar.
    """
    if root.is_file():
        files, root = [root], root.parent
    else:
        files = sorted(file for file in root.rglob("*.tar") if not file.name.startswith("."))
    if not files:
        raise InputError(f"{root} has no *.tar in it: unpack those that are compressed")
    splits = splits_of([file.relative_to(root) for file in files])
    names_file = root / _NAMES
    names = names_file.read_text().splitlines() if names_file.is_file() else None
    key = index_key("webdataset", files, names, splits)
    index = kept_index(key.with_suffix(".npz"), lambda: _build(root, files, splits, names))
    return indexed_dataset("webdataset", index, index.slices(files), [])


def _build(root: Path, files: list[Path], splits: list[str], names: list[str] | None) -> Index:
    rows: list[tuple[int, int, int]] = []  # file, start, size
    labels, images, members = [], [], []
    for place, file in enumerate(files):
        before = len(rows)
        for name, start, size, label in _list_tar(file):
            rows.append((place, start, size))
            images.append(f"{file.relative_to(root).as_posix()}/{name}")
            labels.append(label)
        members.append(len(rows) - before)
    if not rows:
        raise InputError(f"{root}: there is no image in its tars")
    numbers, classes = number_labels(labels, names, lambda i: str(root / images[i]))
    which, starts, sizes = np.array(rows, dtype=np.int64).T
    return Index(which, starts, sizes, np.array(numbers), images, splits, members, classes)


def _list_tar(file: Path) -> list[tuple[str, int, int, str]]:
    """Name, first byte, size and label of each image."""
    images: dict[str, tuple[str, int, int]] = {}
    labels: dict[str, str] = {}
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                folder, slash, base = member.name.rpartition("/")
                stem, dot, rest = base.partition(".")
                key, suffix = f"{folder}{slash}{stem}", f"{dot}{rest}".lower()
                if not member.isreg() or not stem:
                    continue
                if suffix in SUFFIXES:
                    if key in images:
                        raise InputError(f"{file} has two images for {key!r}: {member.name}")
                    images[key] = member.name, member.offset_data, member.size
                elif suffix == _LABEL and member.size <= _LABEL_LIMIT:
                    content = tar.extractfile(member)
                    assert content is not None  # a regular file has one
                    labels[key] = content.read().decode("utf-8", "replace").strip()
            end = tar.offset
    except (tarfile.TarError, EOFError) as error:
        raise InputError(f"{file} is damaged, cut off or compressed ({error})") from error
    if file.stat().st_size < end + tarfile.BLOCKSIZE:  # tarfile does not need the end
        raise InputError(f"{file} is cut off: fetch it again")
    for key, image in images.items():
        if not labels.get(key):
            raise InputError(f"{file} has {image[0]} but no {key}{_LABEL} for its class")
    return [(*image, labels[key]) for key, image in images.items()]
