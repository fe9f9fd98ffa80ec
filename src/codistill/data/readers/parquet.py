"""Parquet files with a column of encoded images and one of labels.

Parquet compresses rows in groups, so that reading one row means reading its whole group. So the
images are copied once, one after the other, into a file of the cache, where each has its place.
"""

import contextlib
import glob
import os
import re
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from codistill.data.encoded import EncodedDataset, Held, Packed
from codistill.data.readers.arrow import arrow_kind, class_names, is_binary
from codistill.data.readers.columns import (
    LABEL_OPTION,
    LABELS,
    Columns,
    pick_images,
    pick_labels,
    refuse_unlikely,
)
from codistill.data.readers.index import (
    Index,
    files_below,
    index_key,
    indexed_dataset,
    kept_index,
)
from codistill.data.readers.labels import label_texts, number_labels, unlabelled_notes
from codistill.data.readers.splits import SplitNames, refuse_split_column, splits_of
from codistill.errors import InputError, reason
from codistill.files import refusing_writes, writing_alone, written
from codistill.importing import optional
from codistill.messages import note, option
from codistill.names import DATASETS

SUFFIXES = (".parquet", ".parq", ".pq")
_ROWS = 256  # in memory at a time
_ANNOUNCED = 1 << 30  # bytes: larger copies are announced


def list_parquet(place: Path, columns: Columns, split_names: SplitNames) -> EncodedDataset:
    """The images of parquet files. A file's name says its split, as in train-00000-of-00003.

    Args:
        place: a folder with the files at any depth, a pattern, or one file.
        columns: names of the columns of labels and images.
        split_names: which words of the files' paths say which split.
    """
    optional("pyarrow", "reading parquet files")
    if place.is_dir():
        root, files = place, files_below(place, *SUFFIXES)
    elif place.is_file():  # whatever its name has: brackets are no pattern then
        root, files = place.parent, [place]
    else:
        files = sorted(Path(file) for file in glob.glob(str(place), recursive=True))
        root = Path(os.path.commonpath([file.parent for file in files])) if files else place
    files = [file for file in files if file.is_file() and not file.name.startswith(".")]
    if not files:
        raise InputError(
            f"{place}: there is no parquet file: give a folder, or a pattern in quotes"
        )
    splits = splits_of([file.relative_to(root) for file in files], split_names)
    if split_names.given is None and set(splits) == {"all"}:
        _refuse_split_column(files)
    used = [(file, split) for file, split in zip(files, splits, strict=True) if split]
    files, splits = [file for file, _ in used], [split for _, split in used]
    stem = index_key("parquet", files, columns, splits)
    images, kept = stem.with_suffix(".images"), stem.with_suffix(".npz")

    def copied() -> Index:
        def copy() -> Index:
            return _copy(root, files, splits, columns, images)

        changed = [file.stat().st_mtime_ns for file in (kept, images) if file.is_file()]
        if changed != sorted(changed, reverse=True):  # the copy by something else
            kept.unlink()
        index = kept_index(kept, copy)
        if not images.is_file() or images.stat().st_size != index.sizes.sum():
            kept.unlink(missing_ok=True)
            index = kept_index(kept, copy)
        return index

    if images.is_file() and kept.is_file():
        index = copied()
    else:
        with writing_alone(stem):  # another process may have copied them in the meantime
            index = copied()
    return indexed_dataset("parquet", index, index.slices([images], kept), files)


def _refuse_split_column(files: list[Path]) -> None:
    for file in files:
        refuse_split_column(column_names(file), lambda c, f=file: _values(f, c), file)


def column_names(file: Path) -> list[str]:
    """The names of a file's columns."""
    pq = optional("pyarrow.parquet", "reading parquet files")
    with _reading(file):
        return list(pq.read_schema(file).names)


def _values(file: Path, column: str) -> set[Any]:
    pq = optional("pyarrow.parquet", "reading parquet files")
    with _reading(file):
        return {*pq.read_table(file, columns=[column]).column(0).unique().to_pylist()}


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Turns what pyarrow raises into an InputError."""
    pyarrow = optional("pyarrow", "reading parquet files")
    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise InputError(f"{file} cannot be read: {error.strerror}") from error
        why = f"{file} is damaged or cut off ({reason(error)}): fetch it again"
        raise InputError(why) from error


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
    index = _read(files[0].parent, files, splits, Columns(), contents.append, labels, numbers)
    return indexed_dataset(name, index, Held(contents, Packed(index.names)), files)


def _copy(
    root: Path, files: list[Path], splits: list[str], columns: Columns, images: Path
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

        index = _read(root, files, splits, columns, append)
        if not len(index.sizes):
            raise InputError(f"{root}: there is no row with a label in its parquet files")
    return index


def _read(
    root: Path,
    files: list[Path],
    splits: list[str],
    columns: Columns,
    append: Callable[[bytes], object],
    likely: Sequence[str] = LABELS,
    unnamed: list[str] | None = None,
) -> Index:
    """Gives every image to `append`, one after the other, and returns where each lies then.

    Args:
        root: folder that the names of images are relative to.
        files: the tables.
        splits: split of each table.
        columns: names of the columns of labels and images.
        append: called with each image's bytes.
        likely: names of that column, if it is not given.
        unnamed: class names, if the tables have none.
    """
    sizes: list[int] = []
    crcs: list[int] = []
    labels: list[str] = []
    names: list[str] = []
    members: list[int] = []
    classes: list[str] | None = None
    unlabelled: Counter[str] = Counter()
    label = ""
    pq = optional("pyarrow.parquet", "reading parquet files")
    for place, file in enumerate(files):
        before = len(sizes)
        with _reading(file), pq.ParquetFile(file) as table:
            schema = table.schema_arrow
            earlier = label, classes
            image, label = _columns(schema, columns, likely, file)
            classes = class_names(schema, label)
            if place and classes != earlier[1]:
                raise InputError(f"{file} has other class names than {files[0]}")
            if place and label != earlier[0]:
                raise InputError(
                    f"{file} has its labels in {label!r}, and {files[0]} in {earlier[0]!r}: "
                    f"say which it is, such as {option(LABEL_OPTION, label)}"
                )
            shown, start = file.relative_to(root).as_posix(), 0
            for batch in table.iter_batches(_ROWS, columns=[image, label]):
                values = batch.column(label).to_pylist()
                texts = label_texts(values, classes, f"{file}", label, start)
                for i, content in enumerate(batch.column(image).to_pylist()):
                    text, row = texts[i], start + i
                    if text is None and unnamed is not None:
                        raise InputError(
                            f"{file}, row {row}: the label is {values[i]}: labels count from 0"
                        )
                    if text is None:
                        unlabelled[splits[place]] += 1
                        continue
                    encoded = _content(content, file, row)
                    append(encoded)
                    sizes.append(len(encoded))
                    crcs.append(zlib.crc32(encoded))
                    labels.append(text)
                    names.append(f"{shown}, row {row}")
                start += len(texts)
        members.append(len(sizes) - before)
    ends = np.cumsum([0, *sizes])
    known = classes or unnamed
    numbers, kinds, notes = number_labels(labels, known, lambda i: str(root / names[i]))
    if unnamed is None:
        if {split for split, count in zip(splits, members, strict=True) if count} == {"train"}:
            splits = ["all"] * len(splits)  # the others have no labels
        refuse_unlikely(label, columns.label, numbers, root)
    notes += unlabelled_notes(unlabelled)
    return Index(
        which=np.zeros(len(sizes), np.int64),
        starts=ends[:-1],
        sizes=np.array(sizes, np.int64),
        labels=np.array(numbers, np.int64),
        names=names,
        splits=splits,
        members=members,
        classes=kinds,
        origin=f"the column {label!r}",
        notes=notes,
        crcs=np.array(crcs, np.uint32),
    )


def _columns(schema: Any, given: Columns, likely: Sequence[str], file: Path) -> tuple[str, str]:
    """The names of the columns of images and labels."""
    kinds = {f.name: arrow_kind(f.type) for f in schema}
    named = [name for name in kinds if class_names(schema, name)]
    others = {f.name: f"{f.type}" for f in schema}
    images = [name for name, kind in kinds.items() if kind == "images" and name != given.label]
    image = pick_images(images, others, given.image, file)
    labels = {
        name: "numbers" if kind == "numbers" else "text"
        for name, kind in kinds.items()
        if name != image
        and (
            kind in ("text", "numbers") or (kind == "images" and is_binary(schema.field(name).type))
        )
        and (kind != "images" or name in (given.label, *likely))
    }
    rest = {name: kind for name, kind in others.items() if name not in labels}
    return image, pick_labels(labels, rest, named, given.label, file, likely)


def _content(row: Any, file: Path, number: int) -> bytes:
    content = row.get("bytes") if isinstance(row, dict) else row
    if not isinstance(content, bytes):
        path = row.get("path") if isinstance(row, dict) else None
        raise InputError(
            f"{file}, row {number}: no image bytes are stored in the file"
            + (f", only the path {path}: list paths in a table (--data csv)" if path else "")
        )
    return content
