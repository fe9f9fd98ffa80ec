"""Data sets of the Hugging Face Hub. The library `datasets` fetches them and keeps them on disk."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from codistill.data.encoded import EncodedDataset, Listed, Origin, make_dataset
from codistill.data.readers.arrow import arrow_kind
from codistill.data.readers.columns import Columns, pick_images, pick_labels, refuse_unlikely
from codistill.data.readers.labels import label_texts, number_labels, unlabelled_notes
from codistill.data.readers.splits import (
    OPTION,
    SPLITS,
    SplitNames,
    is_split_name,
    refuse_split_column,
    split_of,
)
from codistill.errors import InputError
from codistill.files import place_of
from codistill.importing import optional
from codistill.messages import counted, option, quoted


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

    def stamp(self, i: int) -> str:
        table, row = self._place(i)
        return f"{self.tables[table]._fingerprint}\t{row}"

    def _place(self, i: int) -> tuple[int, int]:
        table = int(np.searchsorted(self.ends, i, side="right")) - 1
        return table, i - int(self.ends[table])


def list_hub(name: str, columns: Columns, split_names: SplitNames) -> EncodedDataset:
    """A data set of the Hub, with the splits train, validation and test, or train alone.

    Args:
        name: name such as "ylecun/mnist", with a configuration after a colon; or a local folder.
        columns: names of the columns of labels and images. Default: found by name and type.
        split_names: which names of splits say which split.
    """
    tables, places, notes = _load(name, split_names)
    first = next(iter(tables.values()))
    image, label = _columns(first.features, columns, name)
    classes = getattr(first.features[label], "names", None)
    kept: list[tuple[str, Any]] = []
    found: list[str] = []
    listing: list[tuple[str, int, str]] = []  # split, size, name
    unlabelled: dict[str, int] = {}
    for split, table in tables.items():
        if lacking := {image, label} - set(table.features):
            notes.append(f"split {places[split]!r} has no column {min(lacking)!r}: left out")
            continue
        texts = label_texts(table[label][:], classes, f"{name}: {split}", label, 0)
        if all(text is None for text in texts):
            notes.append(f"split {places[split]!r} has no labels: left out")
            continue
        table = _undecoded(table.select_columns([image]), image)
        sizes = _sizes(table, image)
        rows = [row for row, text in enumerate(texts) if text is not None]
        if len(rows) < len(texts):
            unlabelled[split] = len(texts) - len(rows)
            table = table.select(rows)
        kept.append((split, table))
        found += [text for text in texts if text is not None]
        listing += [(split, sizes[row], f"{split}, row {row}") for row in rows]
    if not kept:
        raise InputError(f"{name} has no row with a label in {label!r}")
    numbers, kinds, more = number_labels(found, classes, lambda i: f"{name}: {listing[i][2]}")
    if classes is None:
        refuse_unlikely(label, columns.label, numbers, name)
    if "train" not in {split for split, _ in kept}:
        raise InputError(f"{name} has no labels in its split for training")
    only = {split for split, _ in kept} == {"train"}
    ends = np.cumsum([0, *(len(table) for _, table in kept)])
    store = Rows(tuple(t for _, t in kept), image, tuple(s for s, _ in kept), ends)
    images = [
        Listed("all" if only else split, number, size, row)
        for (split, size, row), number in zip(listing, numbers, strict=True)
    ]
    if only:
        unlabelled = {"all": sum(unlabelled.values())}
    notes += [*more, *unlabelled_notes(unlabelled)]
    shown = {"all" if only else split: repr(places[split]) for split, _ in kept}
    return make_dataset("hub", images, store, kinds, notes, Origin(f"the column {label!r}", shown))


def _load(name: str, split_names: SplitNames) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """The tables by our names for their splits, the names that they have, and notes on others."""
    datasets = optional("datasets", "data set 'hub'")
    path, _, configuration = name.partition(":")
    folder = place_of(path)
    try:
        loaded = (
            _saved(folder)
            if folder.is_dir() and _is_saved(folder)
            else datasets.load_dataset(
                str(folder.absolute()) if folder.is_dir() else path, configuration or None
            )
        )
    except Exception as error:  # there are many: network, files, configurations
        reason = " ".join(str(error).split())
        raise InputError(f"the data set {name!r} cannot be loaded: {reason}") from error
    split_names.require(loaded, name)
    if split_names.given is None and len(loaded) == 1:
        (table,) = loaded.values()
        refuse_split_column(table.features, table.unique, name)
    tables: dict[str, Any] = {}
    places: dict[str, str] = {}
    ordered = sorted(loaded, key=lambda split: not is_split_name(split))
    for split in ordered if split_names.given != {} else []:
        ours = split_names.of(split)
        if ours and ours not in tables:
            tables[ours], places[ours] = loaded[split], split
    if split_names.given == {}:
        tables["train"] = datasets.concatenate_datasets(list(loaded.values()))
        places["train"] = " and ".join(loaded)
        return tables, places, []
    if split_names.given is None and [split_of(split) for split in loaded] == [""]:
        ((places["train"], tables["train"]),) = loaded.items()
        return {"train": tables["train"]}, {"train": places["train"]}, []
    if "train" not in tables:
        raise InputError(
            f"{name} has the splits {quoted(loaded)}, but none for training: say which it is, such "
            f"as {option(OPTION, f'train={next(iter(loaded))}')}"
        )
    unused = [split for split in loaded if split not in places.values()]
    notes = [
        f"split {split!r} ({counted(len(loaded[split]), 'image')}) is not used" for split in unused
    ]
    return {split: tables[split] for split in SPLITS if split in tables}, places, notes


def _is_saved(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def _saved(folder: Path) -> dict[str, Any]:
    """What `save_to_disk` wrote, by split; one table alone is undivided."""
    import datasets

    loaded = datasets.load_from_disk(str(folder.absolute()))
    return {"train": loaded} if isinstance(loaded, datasets.Dataset) else dict(loaded)


def _columns(features: Any, given: Columns, name: str) -> tuple[str, str]:
    import datasets

    images = [n for n, f in features.items() if isinstance(f, datasets.Image)]
    others = {n: f"{getattr(f, 'dtype', None) or f}" for n, f in features.items()}
    image = pick_images(images, others, given.image, name, "images")
    numbered = [n for n, f in features.items() if isinstance(f, datasets.ClassLabel)]
    kinds: dict[str, str | None] = {}
    for column, feature in features.items():
        if column in numbered:
            kinds[column] = "numbers"
        elif isinstance(feature, datasets.Value):
            kind = arrow_kind(feature.pa_type)
            if kind in ("text", "numbers"):
                kinds[column] = kind
    rest = {n: kind for n, kind in others.items() if n not in kinds}
    return image, pick_labels(kinds, rest, numbered, given.label, name)


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
