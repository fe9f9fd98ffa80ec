"""Tables of paths and labels in text files: CSV with any usual delimiter, TSV, JSON Lines."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from codistill.data.encoded import EncodedDataset, Files, Listed, Origin, Packed, make_dataset
from codistill.data.readers.decode import SUFFIXES
from codistill.data.readers.folders import is_image, list_images, subfolders
from codistill.data.readers.index import files_below
from codistill.data.readers.labels import (
    LABEL_OPTION,
    LABELS,
    PERHAPS_LABELS,
    Columns,
    label_text,
    number_labels,
    pick_images,
    pick_labels,
    refuse_unlikely,
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
from codistill.data.readers.text_tables import Table, read_table
from codistill.errors import InputError
from codistill.messages import counted, option, quoted, shorten

_PATHS = (
    "path",
    "file",
    "file_name",
    "filename",
    "filepath",
    "file_path",
    "image_path",
    "image_file",
    "image_name",
    "image",
    "img",
    "img_path",
    "images",
    "image_id",
    "id",
)
_SUFFIXES = (".csv", ".tsv", ".jsonl")
_NO, _YES = {"0", "0.0", "false"}, {"1", "1.0", "true"}
_ONE_HOT = "columns of 0 and 1"  # stands for a column of labels, where each class has its own


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
    files = [place] if place.is_file() else files_below(place, *_SUFFIXES)
    if not files:
        raise InputError(f"{place} has no {', '.join(_SUFFIXES)} in it: give the table of labels")
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
        self.find = _Finder(root)
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
        path, label = _columns(table, file, given, divides)
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
        if self.label != _ONE_HOT:
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
        label = self.label if self.label == _ONE_HOT else f"column {self.label!r}"
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


class _Finder:
    """Finds the file that a table means.

    Args:
        root: folder of the table.
    """

    def __init__(self, root: Path):
        self.root = root
        self.known: dict[str, list[str]] | None = None
        self.looked: Counter[str] = Counter()

    def __call__(self, name: str, where: str, folder: Path) -> str:
        """The path, absolute or relative to the root; the name as it is if there is no such file.

        Args:
            name: path or name in a table.
            where: names its place in messages.
            folder: folder of the table.

        Raises:
            InputError: several files may be meant.
        """
        for path in (name, name.strip(), name.strip().replace("\\", "/")):
            for place in dict.fromkeys((folder.relative_to(self.root), PurePath())):
                if (self.root / place / path).is_file():
                    return os.path.normpath(place / path)
        if self.known is None:
            self.known = {}
            for path in _images_below(self.root):
                stem = os.path.splitext(path)[0]
                for key in {path, stem, os.path.basename(path), os.path.basename(stem)}:
                    self.known.setdefault(key, []).append(path)
        wanted = name.strip().replace("\\", "/")
        parts = wanted.split("/")  # of another machine's path, the first may be left out
        tails = ("/".join(parts[i:]) for i in range(len(parts)))
        found = next((self.known[tail] for tail in tails if tail in self.known), [])
        if len(found) > 1:
            raise InputError(
                f"{where}: {name} may be {shorten(found)}: write the path from the table's folder"
            )
        if found:
            self.looked[os.path.dirname(found[0]) or "."] += 1
            return found[0]
        return wanted

    def notes(self) -> list[str]:
        """Where files were found that are not where the tables say."""
        return [
            f"files that are not where the table says, found by their names in {folder}/: "
            f"{images:,}"
            for folder, images in self.looked.items()
        ]


def _images_below(root: Path) -> list[str]:
    found = [file.name for file in root.iterdir() if is_image(file)]
    for folder in subfolders(root):
        found += [name for name, _ in list_images(root, folder, Counter())]
    return sorted(found)


def _columns(
    table: Table, file: Path, given: Columns, divides: str | None
) -> tuple[str, str | None]:
    """The columns of paths and labels; without any that may be labels, None."""
    content = {
        name: [value for value in values if value is not None]
        for name, values in table.items()
        if name and name != divides and not name.startswith("Unnamed: ")
    }
    others = dict.fromkeys(table, "text")
    texts = {n: v for n, v in content.items() if all(isinstance(x, str) for x in v)}
    paths = [name for name, values in texts.items() if _are_paths(values)]
    named = [name for name in texts if name.casefold() in _PATHS and name != given.label]
    path = (
        pick_images(paths or named, others, given.image, file, "paths of images", _PATHS)
        if given.image not in texts
        else given.image
    )
    kinds: dict[str, str | None] = {}
    rest = {}
    for name, values in content.items():
        if name == path or (name in paths and name != given.label):
            continue
        if any(isinstance(value, list | dict) for value in values):
            rest[name] = "lists"
            continue
        numeric = all(isinstance(x, int | float) or _is_number(x) for x in values if x != "")
        kinds[name] = "numbers" if numeric else "text"
    if not kinds and not rest and given.label is None:
        return path, None
    if given.label is None and not rest and (classes := _one_hot(kinds, content, file)):
        table[_ONE_HOT] = _by_column(classes, table)
        return path, _ONE_HOT
    return path, pick_labels(kinds, {path: "paths", **rest}, (), given.label, file)


def _one_hot(
    kinds: Mapping[str, str | None], content: Mapping[str, Sequence[object]], file: Path
) -> list[str]:
    """The columns of which each is a class and has 1 where an image is of it; [] if none are.

    Raises:
        InputError: an image is of several of them, or of none.
    """
    known = {name.strip().casefold() for name in kinds} & {*LABELS, *PERHAPS_LABELS}
    if known or any(kind == "text" and not _are_flags(content[n]) for n, kind in kinds.items()):
        return []
    columns = [name for name in kinds if _are_flags(content[name])]
    if len(columns) < 2:
        return []
    sums = [sum(map(_flag, row)) for row in zip(*(content[name] for name in columns), strict=True)]
    wrong = next((row for row, ones in enumerate(sums) if ones != 1), None)
    if wrong is None:
        return columns
    if len(columns) < len(kinds):
        return []
    raise InputError(
        f"{file}, row {wrong + 1}: of {quoted(columns)}, which have 0 and 1 as columns of classes "
        f"have, {sums[wrong]} are 1: give each image one class"
    )


def _by_column(classes: Sequence[str], table: Table) -> list[str | None]:
    """The class of each row: the name of the column that has 1."""
    rows = zip(*(table[name] for name in classes), strict=True)
    return [classes[[*map(_flag, row)].index(1)] for row in rows]


def _are_flags(values: Sequence[object]) -> bool:
    return all(_flag(value) >= 0 for value in values)


def _flag(value: object) -> int:
    """0 or 1, as number or text; -1 for anything else."""
    text = str(value).strip().casefold()
    return 0 if text in _NO else 1 if text in _YES else -1


def _are_paths(values: Sequence[str | None]) -> bool:
    """Whether most values end in the suffix of an image."""
    images = sum(os.path.splitext((v or "").strip())[1].lower() in SUFFIXES for v in values)
    return images > len(values) / 2


def _is_number(text: str | None) -> bool:
    try:
        float(text or "nan")
    except ValueError:
        return False
    return True


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except OSError:
        return None
