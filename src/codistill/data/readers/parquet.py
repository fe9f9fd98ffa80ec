"""Parquet files with a column of encoded images and one of labels.

Parquet compresses rows in groups, so that reading one row means reading its whole group. So the
images are copied once, one after the other, into a file of the cache, where each has its place.
"""

import glob
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from codistill.data.encoded import EncodedDataset, Held, Packed
from codistill.data.readers.index import (
    Index,
    index_key,
    indexed_dataset,
    kept_index,
    number_labels,
    splits_of,
)
from codistill.errors import InputError, did_you_mean, reason
from codistill.files import refusing_writes, writing_alone, written
from codistill.importing import optional
from codistill.messages import note
from codistill.names import DATASETS

_IMAGES = ("image", "img", "jpg", "png", "picture", "photo")
LABELS = ("label", "labels", "fine_label", "class", "target", "cls")
_ROWS = 256  # in memory at a time
_ANNOUNCED = 1 << 30  # bytes: larger copies are announced


def list_parquet(place: Path, label_column: str | None) -> EncodedDataset:
    """The images of parquet files. A file's name says its split, as in train-00000-of-00003.

    Args:
        place: a folder with the files at any depth, a pattern, or one file.
        label_column: name of the column of labels. Default: found by its name and type.
    """
    optional("pyarrow", "reading parquet files")
    if place.is_dir():
        root, files = place, sorted(place.rglob("*.parquet"))
    else:
        files = sorted(Path(file) for file in glob.glob(str(place), recursive=True))
        root = Path(os.path.commonpath([file.parent for file in files])) if files else place
    files = [file for file in files if file.is_file() and not file.name.startswith(".")]
    if not files:
        raise InputError(
            f"{place}: there is no parquet file: give a folder, or a pattern in quotes"
        )
    splits = splits_of([file.relative_to(root) for file in files])
    stem = index_key("parquet", files, label_column, splits)
    images, kept = stem.with_suffix(".images"), stem.with_suffix(".npz")

    def copied() -> Index:
        def copy() -> Index:
            return _copy(root, files, splits, label_column, images)

        index = kept_index(kept, copy)
        if not images.is_file() or images.stat().st_size != index.sizes.sum():
            copy()
        return index

    if images.is_file() and kept.is_file():
        index = copied()
    else:
        with writing_alone(stem):  # another process may have copied them in the meantime
            index = copied()
    return indexed_dataset("parquet", index, index.slices([images]), [])


def find_shards(root: Path, name: str) -> dict[str, list[Path]]:
    """The files for "train" and "test" in a folder as on the Hub, or nothing.

    Args:
        root: folder that holds them, perhaps inside a folder of its own.
        name: name of the data set, which may be that folder's name.
    """
    inside = sorted(path for path in root.iterdir() if path.is_dir())
    for folder in (root, root / "data", root / name, *inside):
        shards = {split: sorted(folder.glob(f"{split}-*.parquet")) for split in ("train", "test")}
        if any(shards.values()):
            for split, files in shards.items():
                _check_complete(folder, split, files)
            return shards
    return {}


def _check_complete(folder: Path, split: str, shards: list[Path]) -> None:
    if not shards:
        raise InputError(f"{folder} has parquet files but no {split}-*.parquet")
    announced = re.search(r"-of-(\d+)", shards[0].name)
    if announced and int(announced[1]) != len(shards):
        raise InputError(
            f"{folder} has {len(shards)} of {int(announced[1])} files {split}-*.parquet: "
            "fetch those that are missing"
        )


def read_shards(name: str, shards: dict[str, list[Path]], labels: Sequence[str]) -> EncodedDataset:
    """A small data set, its encoded images in memory.

    Args:
        name: name of the data set.
        shards: split -> files, which lie in one folder.
        labels: names that the column of labels may have, the likeliest first.
    """
    files = [file for split in shards.values() for file in split]
    splits = [split for split, of_split in shards.items() for _ in of_split]
    contents: list[bytes] = []
    numbers = [str(i) for i in range(DATASETS[name].num_classes or 0)]
    index = _read(files[0].parent, files, splits, None, contents.append, labels, numbers)
    return indexed_dataset(name, index, Held(contents, Packed(index.names)), [])


def _copy(
    root: Path, files: list[Path], splits: list[str], label_column: str | None, images: Path
) -> Index:
    """Copies the images of all files into the file `images`."""
    needed, free = sum(f.stat().st_size for f in files), shutil.disk_usage(images.parent).free
    if needed > free:
        raise InputError(
            f"{images.parent} has {free:,} bytes free, but a copy of the images needs {needed:,}: "
            "free some, or give another folder by the environment variable CODISTILL_CACHE"
        )
    if needed > _ANNOUNCED:
        note(f"copying {needed:,} bytes of images to {images}, once")
    with refusing_writes(images.parent), written(images) as temporary, open(temporary, "wb") as out:

        def append(content: bytes) -> None:
            with refusing_writes(images.parent):
                out.write(content)

        index = _read(root, files, splits, label_column, append)
        if not len(index.sizes):
            raise InputError(f"{root}: there is no row in its parquet files")
    return index


def _read(
    root: Path,
    files: list[Path],
    splits: list[str],
    label_column: str | None,
    append: Callable[[bytes], object],
    likely: Sequence[str] = LABELS,
    unnamed: list[str] | None = None,
) -> Index:
    """Gives every image to `append`, one after the other, and returns where each lies then.

    Args:
        root: folder that the names of images are relative to.
        files: the tables.
        splits: split of each table.
        label_column: name of the column of labels, or None.
        append: called with each image's bytes.
        likely: names of that column, if it is not given.
        unnamed: class names, if the tables have none.
    """
    sizes: list[int] = []
    labels: list[str] = []
    names: list[str] = []
    members: list[int] = []
    classes: list[str] | None = None
    pq = optional("pyarrow.parquet", "reading parquet files")
    pyarrow = optional("pyarrow", "reading parquet files")
    for place, file in enumerate(files):
        before = len(sizes)
        try:
            with pq.ParquetFile(file) as table:
                schema = table.schema_arrow
                image, label = _columns(schema, label_column, likely, file)
                for batch in table.iter_batches(_ROWS, columns=[image, label]):
                    row = len(sizes) - before
                    labels += _label_texts(batch.column(label).to_pylist(), file, row)
                    for content in _contents(batch.column(image), file, row):
                        append(content)
                        sizes.append(len(content))
        except (pyarrow.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno:
                raise InputError(f"{file} cannot be read: {error.strerror}") from error
            why = f"{file} is damaged or cut off ({reason(error)}): fetch it again"
            raise InputError(why) from error
        found = _class_names(schema.metadata, label)
        if place and found != classes:
            raise InputError(f"{file} has other class names than {files[0]}")
        classes = found
        members.append(len(sizes) - before)
        shown = file.relative_to(root).as_posix()
        names += [f"{shown}, row {row}" for row in range(members[-1])]
    ends = np.cumsum([0, *sizes])
    numbers, kinds = number_labels(labels, classes or unnamed, lambda i: str(root / names[i]))
    return Index(
        which=np.zeros(len(sizes), np.int64),
        starts=ends[:-1],
        sizes=np.array(sizes, np.int64),
        labels=np.array(numbers, np.int64),
        names=names,
        splits=splits,
        members=members,
        classes=kinds,
    )


def _columns(
    schema: Any, label_column: str | None, likely: Sequence[str], file: Path
) -> tuple[str, str]:
    """The names of the columns of images and labels."""
    from pyarrow import types

    def holds_images(kind: Any) -> bool:
        if types.is_struct(kind):
            return kind.get_field_index("bytes") >= 0
        return types.is_binary(kind) or types.is_large_binary(kind)

    images = [f.name for f in schema if holds_images(f.type)]
    labels = [f.name for f in schema if types.is_integer(f.type) or types.is_string(f.type)]
    image = _pick(images, _IMAGES)
    if label_column is not None and label_column not in labels:
        raise InputError(
            f"{file} has no column of labels called {label_column!r}: "
            f"{did_you_mean(label_column, labels)}"
        )
    label = label_column or _pick(labels, likely)
    if image is None or label is None:
        what = "of image bytes" if image is None else "of labels, whole numbers or text"
        how = " (or name it: data.label_column)" if image and likely is LABELS else ""
        raise InputError(
            f"{file} has the columns {', '.join(schema.names)}: there has to be one {what}{how}"
        )
    return image, label


def _pick(columns: list[str], likely: Sequence[str]) -> str | None:
    """The column with a likely name, or the only one."""
    found = next((name for name in likely if name in columns), None)
    return found or (columns[0] if len(columns) == 1 else None)


def _contents(column: Any, file: Path, start: int) -> Iterator[bytes]:
    for i, row in enumerate(column.to_pylist()):
        content = row["bytes"] if isinstance(row, dict) else row
        if not isinstance(content, bytes):
            raise InputError(f"{file}, row {start + i}: no image bytes are stored in the file")
        yield content


def _label_texts(values: list[Any], file: Path, start: int) -> list[str]:
    for i, value in enumerate(values):
        if value is None or (isinstance(value, int) and value < 0):
            raise InputError(f"{file}, row {start + i}: the label is {value}: labels count from 0")
    return list(map(str, values))


def _class_names(metadata: dict[bytes, bytes] | None, label: str) -> list[str] | None:
    """The class names that the `datasets` library writes into a schema, if it did."""
    try:
        names = json.loads((metadata or {})[b"huggingface"])["info"]["features"][label]["names"]
        return list(map(str, names))
    except (KeyError, TypeError, ValueError):
        return None
