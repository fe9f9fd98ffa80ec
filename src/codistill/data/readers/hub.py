"""Data sets of the Hugging Face Hub. The library `datasets` fetches them and keeps them on disk."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64

from codistill.data.encoded import EncodedDataset, Listed, make_dataset
from codistill.data.readers.class_folders import SPLIT_NAMES
from codistill.data.readers.index import number_labels
from codistill.data.readers.parquet import LABELS
from codistill.errors import InputError, did_you_mean
from codistill.files import place_of
from codistill.importing import optional


@dataclass(frozen=True)
class Rows:
    """Images in tables of the library `datasets`, which reads single rows.

    Attributes:
        tables: T data sets of the library.
        column: name of their column of images.
        splits: name of each table's split.
        ends: (T + 1,), number of rows before each table, and of all rows.
    """

    tables: tuple[Any, ...]
    column: str
    splits: tuple[str, ...]
    ends: Int64[np.ndarray, "T1"]

    def __len__(self) -> int:
        return int(self.ends[-1])

    def read(self, i: int) -> bytes:
        table, row = self._place(i)
        found = self.tables[table][row][self.column]
        if found["bytes"] is not None:
            return found["bytes"]
        with open(found["path"], "rb") as file:
            return file.read()

    def name(self, i: int) -> str:
        table, row = self._place(i)
        return f"{self.splits[table]}, row {row}"

    def _place(self, i: int) -> tuple[int, int]:
        table = int(np.searchsorted(self.ends, i, side="right")) - 1
        return table, i - int(self.ends[table])


def list_hub(name: str, label_column: str | None) -> EncodedDataset:
    """A data set of the Hub, with the splits train, validation and test, or train alone.

    Args:
        name: name such as "ylecun/mnist", with a configuration after a colon; or a local folder.
        label_column: name of the column of labels. Default: found by its name and type.
    """
    tables, notes = _load(name)
    first = next(iter(tables.values()))
    image, label = _columns(first.features, label_column, name)
    names = getattr(first.features[label], "names", None)
    kept: list[tuple[str, Any]] = []
    found: list[Any] = []
    listing: list[tuple[str, int, str]] = []  # split, size, name
    for split, table in tables.items():
        labels = table[label][:]
        if all(value is None or value == -1 for value in labels):
            notes.append(f"split {split!r} has no labels: left out")
            continue
        table = table.select_columns([image])
        kept.append((split, _undecoded(table, image)))
        found += labels
        sizes = _sizes(kept[-1][1], image)
        listing += [(split, size, f"{split}, row {row}") for row, size in enumerate(sizes)]
    if any(value is None or value == -1 for value in found):
        raise InputError(f"{name} has rows without a label in a split that has labels")
    numbers, classes = number_labels(
        list(map(str, found)), names, lambda i: f"{name}: {listing[i][2]}"
    )
    only = {split for split, _ in kept} == {"train"}
    ends = np.cumsum([0, *(len(table) for _, table in kept)])
    store = Rows(tuple(t for _, t in kept), image, tuple(s for s, _ in kept), ends)
    images = [
        Listed("all" if only else split, number, size, row)
        for (split, size, row), number in zip(listing, numbers, strict=True)
    ]
    return make_dataset("hub", images, store, classes, notes)


def _load(name: str) -> tuple[dict[str, Any], list[str]]:
    """The tables by our names for their splits, and notes on the others."""
    datasets = optional("datasets", "data set 'hub'")
    path, _, configuration = name.partition(":")
    folder = place_of(path)
    try:
        loaded = datasets.load_dataset(
            str(folder.absolute()) if folder.is_dir() else path, configuration or None
        )
    except Exception as error:  # there are many: network, files, configurations
        reason = " ".join(str(error).split())
        raise InputError(f"the data set {name!r} cannot be loaded: {reason}") from error
    tables, notes = {}, []
    for split, table in loaded.items():
        ours = next((s for s, names in SPLIT_NAMES.items() if split.lower() in names), None)
        if ours is None or ours in tables:
            notes.append(f"split {split!r} is not used")
        else:
            tables[ours] = table
    if "train" not in tables:
        raise InputError(f"{name} has the splits {', '.join(loaded)}, but none for training")
    return tables, notes


def _columns(features: Any, label_column: str | None, name: str) -> tuple[str, str]:
    import datasets

    images = [n for n, f in features.items() if isinstance(f, datasets.Image)]
    numbered = [n for n, f in features.items() if isinstance(f, datasets.ClassLabel)]
    plain = [n for n, f in features.items() if getattr(f, "dtype", "") in ("int64", "string")]
    labels = [*numbered, *(n for n in plain if n not in numbered)]
    if label_column is not None and label_column not in labels:
        raise InputError(
            f"{name} has no column of labels called {label_column!r}: "
            f"{did_you_mean(label_column, labels)}"
        )
    likely = [n for n in LABELS if n in labels]
    label = label_column or next(iter([*likely, *numbered, *labels]), None)
    if len(images) != 1 or label is None:
        raise InputError(
            f"{name} has the columns {', '.join(features)}: it needs one column of images and one "
            "of labels"
        )
    return images[0], label


def _undecoded(table: Any, image: str) -> Any:
    import datasets

    return table.cast_column(image, datasets.Image(decode=False))


def _sizes(table: Any, image: str) -> list[int]:
    """Bytes of every image, for the fingerprint: in the row, or in the file that the row names."""
    import pyarrow.compute as pc

    column = table.data.column(image)
    sizes = pc.binary_length(pc.struct_field(column, "bytes")).to_pylist()
    paths = pc.struct_field(column, "path").to_pylist() if None in sizes else sizes
    return [
        size if size is not None else os.path.getsize(path) if path and os.path.exists(path) else 0
        for size, path in zip(sizes, paths, strict=True)
    ]
