"""Tables of paths and labels in text files: CSV with any usual delimiter, TSV, JSON Lines."""

from collections import Counter
from pathlib import Path

from codistill.data.encoded import EncodedDataset, Files, Listed, Origin, Packed, make_dataset
from codistill.data.readers.columns import LABEL_OPTION, Columns, refuse_unlikely
from codistill.data.readers.index import files_below
from codistill.data.readers.labels import (
    label_text,
    number_labels,
    unlabelled_notes,
    written_numbers,
)
from codistill.data.readers.splits import (
    NONE,
    OPTION,
    SPLIT_COLUMNS,
    SplitNames,
    example,
    split_column,
    splits_of,
)
from codistill.data.readers.table_columns import ONE_HOT, columns_of
from codistill.data.readers.table_files import Finder
from codistill.data.readers.text_tables import read_table
from codistill.errors import InputError
from codistill.messages import counted, option, shorten

SUFFIXES = (".csv", ".tsv", ".jsonl")


def list_csv(place: Path, columns: Columns, names: SplitNames, fewest: int = 2) -> EncodedDataset:
    """The images that tables name, with their labels and, if a column says it, their splits.

    Args:
        place: a table, or a folder of tables whose names say their splits. Paths in it are relative
            to its folder, or absolute; a name alone is looked for in the folders beside it.
        columns: names of the columns of labels and paths. Default: found by name and content.
        names: which values of the column of splits, or names of files, say which split.
        fewest: number of classes that there have to be.

    Raises:
        InputError: a table cannot be read, or can be read in two ways, or names no image.
    """
    root = place if place.is_dir() else place.parent
    files = [place] if place.is_file() else files_below(place, *SUFFIXES)
    if not files:
        raise InputError(f"{place} has no {', '.join(SUFFIXES)} in it: give the table of labels")
    splits = ["all"] if len(files) == 1 else _splits_of_files(root, files, names)
    rows = _Rows(root)
    for file, split in zip(files, splits, strict=True):
        if split:
            rows.add(file, split, columns, names)
    return rows.dataset(columns, fewest)


def _splits_of_files(root: Path, files: list[Path], names: SplitNames) -> list[str]:
    relative = [file.relative_to(root) for file in files]
    try:
        return splits_of([*relative], names)
    except InputError as error:
        raise InputError(f"{error}; or give one table by --data.root") from error


class _Rows:
    """The rows of all tables.

    Args:
        root: folder that names are relative to.
    """

    def __init__(self, root: Path):
        self.root = root
        self.find = Finder(root)
        self.rows: list[tuple[str, str, str, str]] = []  # split, path, label, where it stands
        self.unlabelled: Counter[str] = Counter()
        self.notes: list[str] = []
        self.places: dict[str, list[str]] = {}
        self.values: dict[str, None] = {}  # of the columns of splits
        self.label = ""

    def add(self, file: Path, split: str, given: Columns, names: SplitNames) -> None:
        """Adds the rows of a table."""
        table = read_table(file)
        divides = None
        if split == "all":
            divides = split_column(table, lambda column: table[column], names, file)
            if names.given and divides is None:
                raise InputError(
                    f"data.splits is given, but no column is called {', '.join(SPLIT_COLUMNS[:-1])}"
                    f" or {SPLIT_COLUMNS[-1]}"
                )
        path, label = columns_of(table, file, given, divides)
        if self.label and label is not None and label != self.label:
            raise InputError(
                f"{file} has its labels in {label!r}, and another table in {self.label!r}: say "
                f"which it is, such as {option(LABEL_OPTION, label)}"
            )
        if label is None:
            self.notes.append(f"{file.name} has no column of labels, and is not used")
            return
        self.label = label
        said = [] if divides is None else table[divides]
        says = ["" if value is None else str(value).strip() for value in said]
        self.values.update(dict.fromkeys(filter(None, says)))
        try:
            labels = written_numbers([label_text(value) for value in table[label]])
        except InputError as error:
            raise InputError(f"{file}: the column {label!r} holds {error}") from error
        others: Counter[str] = Counter()
        place = file.relative_to(self.root).as_posix()
        for row, (name, text) in enumerate(zip(table[path], labels, strict=True)):
            ours, where = split, f"{file}, row {row + 1}"
            if divides is not None:
                value = says[row]
                ours = names.of(value)
                if not ours:
                    others[value] += 1
                    continue
            if not name or not name.strip():
                raise InputError(f"{where}: the column {path!r} is empty: give the image's path")
            if text is None:
                self.unlabelled[ours] += 1
                continue
            self.rows.append((ours, self.find(name, where, file.parent), text, where))
            shown = place if divides is None else f"{place}, {divides!r} {value!r}"
            if shown not in (known := self.places.setdefault(ours, [])):
                known.append(shown)
        for value, images in others.items():
            if names.given is None:
                raise InputError(
                    f"{file}: the column {divides!r} has {value!r} in {counted(images, 'row')}, "
                    f"which says no split: say which values do, such as {example(self.values)}, or "
                    f"give {OPTION} {NONE} if the table is not divided"
                )
            self.notes.append(f"rows with {value!r} in {divides!r}, which are not used: {images:,}")

    def dataset(self, given: Columns, fewest: int) -> EncodedDataset:
        """The data set of all rows."""
        rows = self._once()
        if not rows:
            raise InputError(f"{self.root}: its tables have no row with a path and a label")
        where = [row[3] for row in rows]
        numbers, classes, notes = number_labels([row[2] for row in rows], None, where.__getitem__)
        if self.label != ONE_HOT:
            refuse_unlikely(self.label, given.label, numbers, self.root)
        if len(classes) < fewest:
            raise InputError(f"{where[0]}: all labels are {classes[0]!r}: give two classes or more")
        found = {row[0] for row in rows}
        only = found == {"train"}
        if found & {"val", "test"} and "train" not in found:
            raise InputError(
                f"{self.root}: there are rows for {' and '.join(sorted(found))}, but none for "
                f"train: say which are, such as {example(self.values)}"
            )
        sizes = [_size(self.root / row[1]) for row in rows]
        missing = [row for row, size in zip(rows, sizes, strict=True) if size is None]
        if len(missing) == len(rows):
            raise InputError(
                f"{missing[0][3]}: there is no {missing[0][1]}, nor any other file that the table "
                f"names, below {self.root}: put the table where its paths begin"
            )
        if missing:
            names = shorten([row[1] for row in missing])
            notes.append(
                f"files that the table names and that are not there: {len(missing):,} ({names})"
            )
        listing = [
            Listed("all" if only else split, number, size or 0, path)
            for (split, path, *_), number, size in zip(rows, numbers, sizes, strict=True)
        ]
        notes += [*self.notes, *self.find.notes(), *unlabelled_notes(self.unlabelled)]
        places = {"all" if only else s: " and ".join(p) for s, p in self.places.items()}
        store = Files(str(self.root), Packed(image.name for image in listing))
        label = self.label if self.label == ONE_HOT else f"column {self.label!r}"
        origin = Origin(f"the {label}", places)
        return make_dataset("csv", listing, store, classes, notes, origin)

    def _once(self) -> list[tuple[str, str, str, str]]:
        """Each image once. Raises InputError if one has two labels, or is in two splits."""
        kept: dict[str, tuple[str, str, str, str]] = {}
        for row in self.rows:
            earlier = kept.setdefault(row[1], row)
            if earlier[2] != row[2]:
                raise InputError(
                    f"{row[3]}: {row[1]} has the label {row[2]!r} here and {earlier[2]!r} in "
                    f"{Path(earlier[3]).name}: give each image one label"
                )
            if earlier[0] != row[0]:
                raise InputError(
                    f"{row[3]}: {row[1]} is for {row[0]} here and for {earlier[0]} in "
                    f"{Path(earlier[3]).name}: give each image one split"
                )
        if len(kept) < len(self.rows):
            self.notes.append(
                f"rows that name an image again, which are not used: {len(self.rows) - len(kept):,}"
            )
        return list(kept.values())


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except OSError:
        return None
