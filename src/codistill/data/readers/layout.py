"""Which folders of a data set are splits, and which are classes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from codistill.data.readers.folders import count_images, has_images, is_filled, subfolders
from codistill.data.readers.splits import NONE, OPTION, SPLITS, SplitNames, is_split_name, split_of
from codistill.errors import InputError
from codistill.messages import counted, option, quoted, shorten

_WRAPPERS = {"images", "image", "imgs", "data", "photos", "classes"}  # say nothing about a class
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")
_TABLES = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "csv",
    ".parquet": "parquet",
    ".arrow": "hub",
    ".tar": "webdataset",
}  # suffix -> the data set that reads such files


@dataclass(frozen=True)
class Layout:
    """The folders of a data set, each with its meaning.

    Attributes:
        folders: split -> folder of its class folders; {"all": ...} if the images are not divided.
        unlabelled: name of a split's folder without class folders -> number of its images.
        beside: name of another folder with images -> their number.
    """

    folders: dict[str, Path]
    unlabelled: dict[str, int] = field(default_factory=dict)
    beside: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Look:
    """A folder at first sight.

    Attributes:
        place: the folder, or the one inside it that holds all it has.
        direct: whether images lie in it.
        kinds: names of the folders inside it that have images.
    """

    place: Path
    direct: bool
    kinds: frozenset[str]

    @classmethod
    def at(cls, folder: Path) -> "_Look":
        place = _inner(folder)
        inside = subfolders(place)
        return cls(place, has_images(place), frozenset(f.name for f in inside if is_filled(f)))


def find_layout(root: Path, names: SplitNames) -> Layout:
    """Finds out which folders are splits, and which are classes.

    A folder is that of a split if its name says so and it has folders with images. Where folders
    can be splits as well as classes, the user decides.

    Raises:
        InputError: what there is can be read in two ways, or not at all.
    """
    base = root if names.given is not None else _unwrapped(root)
    inside = subfolders(base)
    looks = {folder: _Look.at(folder) for folder in inside}
    if names.given is not None:
        names.require([folder.name for folder in inside], f"{root}")
    if names.given == {}:
        return Layout({"all": base})

    found: dict[str, Path] = {}
    for folder, look in looks.items():
        split = names.of(folder.name)
        empty = not look.direct and is_split_name(folder.name)
        if not split or not (look.kinds or empty or names.given):
            continue
        if names.given and not look.kinds:
            raise InputError(
                f"data.splits names {folder.name!r}, and {folder} has no class folders with images"
            )
        if split in found:
            raise InputError(
                f"{base} has both {found[split].name}/ and {folder.name}/, and each may be "
                f"{split}: remove or rename one of them, or say which, such as "
                + _say({"train": found.get("train", folder)} | {split: folder})
            )
        found[split] = folder
    if "train" not in found:
        _refuse_two_readings(base, looks, found)
        _refuse_nested_classes(base, f"{OPTION} {NONE}")
        return Layout({"all": base})

    train = looks[found["train"]]
    beside = [folder for folder in inside if folder not in found.values()]
    other = [f for f in beside if looks[f].direct and not split_of(f.name)]
    if not subfolders(train.place):
        if len(found) == 1 and len(inside) > 1 and not names.given:
            return Layout({"all": base})  # a class of trains among other classes
        raise InputError(
            f"{found['train']} has no folders in it: sort the images into one folder per class"
            + _listing_advice(base)
        )
    if len(found) == 1 and other and not names.given:
        raise InputError(
            f"{base} has images in {shorten([f'{f.name}/' for f in other])} beside "
            f"{found['train'].name}/, which has folders of its own: give {OPTION} {NONE} if "
            f"{found['train'].name} is a class like these, or {_say(found)} to leave them out"
        )
    if not names.given:
        for folder in _other_sets(beside, looks, train) if len(found) == 1 else ():
            raise InputError(
                f"{base} has {folder.name}/ beside {found['train'].name}/, with the same class "
                f"folders inside: say what it is, such as {_say(found | {'test': folder})}, or "
                f"{_say(found)} to leave it out"
            )
        _refuse_nested_classes(train.place, _say(found))
    without = [
        folder
        for folder in inside
        if not looks[folder].kinds
        and (folder in found.values() or (not names.given and split_of(folder.name)))
    ]
    folders = {s: looks[folder].place for s, folder in found.items() if folder not in without}
    rest = {f.name: count_images(f) for f in beside if f not in without}
    return Layout(
        {"all": folders["train"]} if len(folders) == 1 else folders,
        {folder.name: count_images(folder) for folder in without},
        {name: count for name, count in rest.items() if count},
    )


def _refuse_two_readings(base: Path, looks: dict[Path, _Look], found: dict[str, Path]) -> None:
    """Raises InputError if the folders may be classes, and may be something else as well."""
    inside = list(looks)
    if found:
        others = " and ".join(f"{folder.name}/" for folder in found.values())
        rest = [
            f for f in inside if f not in found.values() and (looks[f].kinds or looks[f].direct)
        ]
        undivided = [f for f in rest if looks[f].kinds]
        if undivided:
            do = f"name the folder to train on, such as {_say({'train': undivided[0]} | found)}"
        elif rest:
            do = f"put {shorten([f'{f.name}/' for f in rest])} into train/ if they are its classes"
        else:
            (_, largest), *more = found.items()
            do = f"name the folder to train on, such as {_say({'train': largest} | dict(more))}"
        raise InputError(
            f"{base} has {others} but no train/: {do}, or give {OPTION} {NONE} if all folders are "
            "classes"
        )
    flat = {f: split_of(f.name) for f, look in looks.items() if look.direct}
    whole = {split for f, split in flat.items() if split and is_split_name(f.name)}
    if len(whole) > 1 or (all(flat.values()) and len({*flat.values()}) > 1):
        named = [f"{f.name}/" for f, split in flat.items() if split]
        raise InputError(
            f"{base} has images in {' and '.join(named)} but no class folders in them: sort the "
            f"images into one folder per class, or give {OPTION} {NONE} if these are the classes"
            + _listing_advice(base)
        )
    if whole - {"train"}:
        (name,) = [f.name for f, split in flat.items() if split in whole and is_split_name(f.name)]
        raise InputError(
            f"{base} has images in {name}/ beside folders that may be classes: give {OPTION} "
            f"{NONE} if {name} is a class too, or move {name}/ elsewhere if its images are to be "
            f"tested on: without class folders they have no labels"
        )
    plain = {f: look.kinds for f, look in looks.items() if not look.direct and look.kinds}
    for first, kinds in plain.items():
        alike = [f for f in plain if len(plain[f] & kinds) > 1]
        if len(alike) < 2:
            continue
        shared = sorted(frozenset.intersection(*(plain[f] for f in alike)) or kinds)
        shown = shorten([f"{f.name}/" for f in alike])
        inner = " and ".join(f"{name}/" for name in shared[:3])
        if len({split_of(name) for name in shared} - {""}) > 1:
            raise InputError(
                f"{base} has {inner} inside each of {shown}: put the splits outside, as in "
                f"{shared[0]}/{first.name}/, or list the images in a table (--data csv), or give "
                f"{OPTION} {NONE} to take all images of {first.name}/ for one class undivided"
            )
        raise InputError(
            f"{base} has folders {shown} with the same folders inside, {inner}: if they are "
            f"splits, say which, such as {_say({'train': alike[0], 'test': alike[1]})}; "
            f"if they are the classes, give {OPTION} {NONE}"
        )


def _other_sets(beside: list[Path], looks: dict[Path, _Look], train: _Look) -> list[Path]:
    """The folders beside that of train that have its class folders, two of them at least."""
    return [folder for folder in beside if len(looks[folder].kinds & train.kinds) > 1]


def _refuse_nested_classes(place: Path, outer: str) -> None:
    """Raises InputError if the folders in a folder may be classes, or groups of classes.

    They may be groups where all of them have no image of their own but several folders of images,
    no two of which have the same name.

    Args:
        place: folder of class folders.
        outer: option that says that the outer folders are the classes.
    """
    looks = {folder: _Look.at(folder) for folder in subfolders(place) if is_filled(folder)}
    inner = [kind for look in looks.values() for kind in look.kinds]
    if len(looks) < 2 or len({*inner}) < len(inner):
        return
    if all(not look.direct and len(look.kinds) > 1 for look in looks.values()):
        (group, look), *_ = looks.items()
        kinds = sorted(look.kinds)
        raise InputError(
            f"{place} has {counted(len(looks), 'folder')} with folders of images inside, such as "
            f"{group.name}/{kinds[0]}/ and {group.name}/{kinds[1]}/: give {outer} if the outer "
            f"ones are the classes ({quoted(f.name for f in looks)}), or move the inner ones up "
            f"if those are ({quoted(sorted(inner))})"
        )


def _say(found: Mapping[str, Path]) -> str:
    """The option that names these folders."""
    return option(OPTION, ",".join(f"{s}={found[s].name}" for s in SPLITS if s in found))


def advice(files: list[Path]) -> str:
    """What to do with archives and tables that lie where class folders should."""
    archives = [file.name for file in files if file.suffix.lower() in ARCHIVES]
    tables = [file for file in files if file.suffix.lower() in _TABLES]
    advice = f"; unpack {shorten(archives)} first" if archives else ""
    if tables:
        kind = _TABLES[tables[0].suffix.lower()]
        advice += f"; {tables[0].name} is read by --data {kind} {option('--data.root', tables[0])}"
    return advice


def _listing_advice(base: Path) -> str:
    """Where tables of labels lie beside images or in folders of splits: how to use them."""
    for folder in (base, *subfolders(base)):
        for file in sorted(folder.iterdir()):
            if file.is_file() and _TABLES.get(file.suffix.lower()) == "csv":
                if folder == base:
                    return advice([file])
                place = option("--data.root", base)
                return f"; {folder.name}/{file.name} is read by --data csv {place}"
    return ""


def _unwrapped(root: Path) -> Path:
    """The folder inside folders that have nothing else, as archives make them."""
    base, seen = root, {root.resolve()}
    while not has_images(base):
        inside = subfolders(base)
        if len(inside) != 1 or (look := inside[0].resolve()) in seen or has_images(inside[0]):
            break
        if split_of(inside[0].name) not in ("", "train") or not subfolders(inside[0]):
            break
        seen.add(look)
        base = inside[0]
    return base


def _inner(folder: Path) -> Path:
    """The folder inside one of a split, where archives repeat its name: train/train/."""
    place, seen = folder, {folder.resolve()}
    while not has_images(place):
        inside = subfolders(place)
        if len(inside) != 1 or (look := inside[0].resolve()) in seen:
            break
        name, above = inside[0].name.casefold(), folder.name.casefold()
        split = split_of(name)
        if not (name == above or name in _WRAPPERS or (split and split == split_of(above))):
            break
        if name in _WRAPPERS and not subfolders(inside[0]):
            break
        seen.add(look)
        place = inside[0]
    return place
