"""Parquet files with a column of encoded images and one of labels.

A table is compressed in groups of rows, and has no way to one row but through its group. So the
images are copied once, one after the other, into a file of the cache, where each has its place.
"""

import glob
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from codistill.data.encoded import EncodedDataset
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

_IMAGES = ("image", "img", "jpg", "png", "picture", "photo")
LABELS = ("label", "labels", "fine_label", "class", "target", "cls")
_ROWS = 256  # in memory at a time
_ANNOUNCED = 1 << 30  # bytes from which on it is said that they are copied


def list_parquet(place: Path, label_column: str | None) -> EncodedDataset:
    """The images of parquet files; the file's name says the split, as train-00000-of-00003.

    Args:
        place: a folder, with the files at any depth, or a pattern, or one file.
        label_column: its name. Default: found by its name and type.
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
        with writing_alone(stem):  # another process may have copied them while this one waited
            index = copied()
    return indexed_dataset("parquet", index, [images], [])


def _copy(
    root: Path, files: list[Path], splits: list[str], label_column: str | None, images: Path
) -> Index:
    needed, free = sum(f.stat().st_size for f in files), shutil.disk_usage(images.parent).free
    if needed > free:
        raise InputError(
            f"{images.parent} has {free:,} bytes free, but a copy of the images needs {needed:,}: "
            "free some, or give another folder by the environment variable CODISTILL_CACHE"
        )
    if needed > _ANNOUNCED:
        note(f"copying {needed:,} bytes of images to {images}, once")
    sizes: list[int] = []
    labels: list[str] = []
    members: list[int] = []
    names: list[str] | None = None
    with refusing_writes(images.parent), written(images) as temporary, open(temporary, "wb") as out:
        for place, file in enumerate(files):
            before = len(sizes)
            found = _copy_file(file, label_column, out, sizes, labels)
            if place and found != names:
                raise InputError(f"{file} has other class names than {files[0]}")
            names = found
            members.append(len(sizes) - before)
    if not sizes:
        raise InputError(f"{root}: there is no row in its parquet files")
    numbers, classes = number_labels(labels, names)
    row_names = [
        f"{file.relative_to(root).as_posix()}, row {row}"
        for file, count in zip(files, members, strict=True)
        for row in range(count)
    ]
    ends = np.cumsum([0, *sizes])
    return Index(
        which=np.zeros(len(sizes), np.int64),
        starts=ends[:-1],
        sizes=np.array(sizes),
        labels=np.array(numbers),
        names=row_names,
        splits=splits,
        members=members,
        classes=classes,
    )


def _copy_file(
    file: Path, label_column: str | None, out: BinaryIO, sizes: list[int], labels: list[str]
) -> list[str] | None:
    """Appends a file's images and labels; returns the class names that its schema has, if any."""
    import pyarrow
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as table:
            schema = table.schema_arrow
            image, label = _columns(schema, label_column, file)
            for batch in table.iter_batches(_ROWS, columns=[image, label]):
                for content in _contents(batch.column(image), file, len(sizes)):
                    with refusing_writes(Path(out.name).parent):
                        out.write(content)
                    sizes.append(len(content))
                labels += _label_texts(batch.column(label).to_pylist(), file)
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise InputError(f"{file} cannot be read: {error.strerror}") from error
        why = f"{file} is damaged or cut off ({reason(error)}): fetch it again"
        raise InputError(why) from error
    return class_names(schema.metadata, label)


def _columns(schema: Any, label_column: str | None, file: Path) -> tuple[str, str]:
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
    label = label_column or _pick(labels, LABELS)
    if image is None or label is None:
        what = "of image bytes" if image is None else "of labels (or name it: data.label_column)"
        raise InputError(
            f"{file} has the columns {', '.join(schema.names)}: there has to be one {what}"
        )
    return image, label


def _pick(columns: list[str], likely: tuple[str, ...]) -> str | None:
    """The column with a likely name, or the only one."""
    found = next((name for name in likely if name in columns), None)
    return found or (columns[0] if len(columns) == 1 else None)


def _contents(column: Any, file: Path, start: int) -> Iterator[bytes]:
    for i, row in enumerate(column.to_pylist()):
        content = row["bytes"] if isinstance(row, dict) else row
        if not isinstance(content, bytes):
            raise InputError(f"{file}, image {start + i}: no image bytes are stored in the file")
        yield content


def _label_texts(values: list[Any], file: Path) -> list[str]:
    for value in values:
        if value is None or (isinstance(value, int) and value < 0):
            raise InputError(f"{file} has a row whose label is {value}: labels count from 0")
    return list(map(str, values))


def class_names(metadata: dict[bytes, bytes] | None, label: str) -> list[str] | None:
    """The class names that the `datasets` library writes into a schema, if it did."""
    try:
        names = json.loads((metadata or {})[b"huggingface"])["info"]["features"][label]["names"]
        return list(map(str, names))
    except (KeyError, TypeError, ValueError):
        return None
