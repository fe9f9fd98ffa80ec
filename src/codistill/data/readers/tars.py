"""Tar shards as `webdataset` reads them: the files of one image share a name up to the first dot.

The shards are indexed, not streamed: their headers are read once, and then every image is read from
its place. So images are shuffled over all shards instead of within a buffer, and an epoch can
resume at any image with any number of workers. The files must lie on a disk, not behind HTTP.
"""

import json
import os
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from codistill.data.encoded import EncodedDataset
from codistill.data.readers.columns import pick_labels, refuse_unlikely
from codistill.data.readers.decode import SUFFIXES
from codistill.data.readers.index import (
    Index,
    files_below,
    index_key,
    indexed_dataset,
    kept_index,
)
from codistill.data.readers.labels import label_text, number_labels, written_numbers
from codistill.data.readers.splits import SplitNames, splits_of
from codistill.data.readers.text_tables import text_of
from codistill.errors import InputError

_PLAIN = (".cls", ".label", ".class", ".txt")  # files that hold a label and nothing else
_LIKELY = (".cls", ".label", "label", "labels", ".class", "class", ".txt")  # the first is taken
_JSON = ".json"
_LABEL_LIMIT = 10_000  # bytes
_LONGEST = 200  # letters of a class's name; a longer text is a caption
_NAMES = "classnames.txt"


def list_tars(root: Path, names: SplitNames, label_column: str | None) -> EncodedDataset:
    """KEY.jpg and KEY.cls in *.tar. Class names come from classnames.txt, if it exists, one a line.

    Args:
        root: folder that holds tars at any depth, or one tar.
        names: which words of the files' paths say which split.
        label_column: suffix of the files of labels, such as "txt", or key in KEY.json. Default:
            cls, or the only one.
    """
    if root.is_file():
        files, root = [root], root.parent
    else:
        files = files_below(root, ".tar")
    if not files:
        raise InputError(f"{root} has no *.tar in it: unpack those that are compressed")
    splits = splits_of([file.relative_to(root) for file in files], names)
    used = [(file, split) for file, split in zip(files, splits, strict=True) if split]
    files, splits = [file for file, _ in used], [split for _, split in used]
    classes = read_class_list(root / _NAMES) if (root / _NAMES).is_file() else None
    key = index_key("webdataset", files, classes, splits, label_column)

    def build() -> Index:
        return _build(root, files, splits, classes, label_column)

    kept = key.with_suffix(".npz")
    index = kept_index(kept, build)
    return indexed_dataset("webdataset", index, index.slices(files, kept), files)


def read_class_list(file: Path) -> list[str]:
    """The names of a file with one class in each line."""
    lines = [line.strip() for line in text_of(file).splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    if not all(lines):
        raise InputError(
            f"{file}, line {lines.index('') + 1} is empty: give each class a name, in one line"
        )
    remark = next((i for i, line in enumerate(lines) if line.startswith("#")), None)
    if remark is not None:
        raise InputError(
            f"{file}, line {remark + 1} is {lines[remark]!r}: every line is a class: take out "
            "remarks"
        )
    twice = [name for name, count in Counter(lines).items() if count > 1]
    if twice:
        raise InputError(f"{file} has the class {twice[0]!r} twice: give each a name of its own")
    return lines


@dataclass
class _Members:
    """What a tar has for each key: the files of one image share one.

    Attributes:
        images: key -> suffix -> name, first byte and size of each image.
        labels: suffix, or name in JSON files -> key -> label.
        other: files that are neither, by suffix.
    """

    images: dict[str, dict[str, tuple[str, int, int]]] = field(default_factory=dict)
    labels: dict[str, dict[str, str | None]] = field(default_factory=dict)
    other: Counter[str] = field(default_factory=Counter)


def _build(
    root: Path,
    files: list[Path],
    splits: list[str],
    names: list[str] | None,
    label_column: str | None,
) -> Index:
    tars = [_list_tar(file) for file in files]
    column = _label_column(root, tars, label_column)
    rows: list[tuple[int, int, int]] = []  # file, start, size
    labels: list[str | None] = []
    images: list[str] = []
    members: list[int] = []
    other: Counter[str] = Counter()
    for place, (file, tar) in enumerate(zip(files, tars, strict=True)):
        before = len(rows)
        other += tar.other
        for name, start, size, label in _labelled(file, tar, column, other):
            rows.append((place, start, size))
            images.append(f"{file.relative_to(root).as_posix()}/{name}")
            labels.append(label)
        members.append(len(rows) - before)
    if not rows:
        raise InputError(f"{root}: there is no image in its tars{_passed_over(other, ': found ')}")
    texts = [label for label in written_numbers(labels) if label is not None]
    if len(texts) < len(labels):  # "nan" among numbers
        raise InputError(f"{root}: {len(labels) - len(texts):,} labels in {column} are no numbers")
    numbers, classes, notes = number_labels(texts, names, lambda i: str(root / images[i]))
    named = label_column or (column if column in _LIKELY[:-1] else None)
    refuse_unlikely(column, named, numbers, root)
    which, starts, sizes = np.array(rows, dtype=np.int64).T
    packed = files_below(root, ".gz", ".tgz", ".bz2", ".xz", ".zst")
    if packed and len(files) > 1:
        notes.append(
            f"compressed files, which are not read: {len(packed):,} ({packed[0].name}, ...)"
        )
    if other:
        notes.append(_passed_over(other, "files in the tars that are not used: "))
    origin = f"{column} files" if column in _PLAIN else f"{column!r} in .json files"
    if names:
        origin += f" and {_NAMES}"
    return Index(
        which, starts, sizes, np.array(numbers), images, splits, members, classes, origin, notes
    )


def _passed_over(other: Counter[str], begin: str) -> str:
    kinds = ", ".join(f"{n:,} {suffix or 'without a suffix'}" for suffix, n in other.most_common(5))
    return begin + kinds if other else ""


def _label_column(root: Path, tars: list[_Members], given: str | None) -> str:
    """The suffix of files of labels, or the key in JSON files, that labels are taken from."""
    found: dict[str, list[str]] = {}
    for tar in tars:
        for column, labels in tar.labels.items():
            found.setdefault(column, []).extend(label or "" for label in labels.values())
    if not found:
        name = next((n for tar in tars for k in tar.images.values() for n, *_ in k.values()), None)
        if name is not None:
            raise InputError(
                f"{root}: its tars have {name} but no {_key(name)}.cls for its class, nor a .txt "
                "or .json with one"
            )
        return ".cls"
    kinds = {
        column: "numbers" if all(label.isdecimal() for label in labels) else "text"
        for column, labels in found.items()
    }
    if given is not None and given not in kinds and f".{given}" in kinds:
        given = f".{given}"
    return pick_labels(kinds, {}, (), given, f"{root}", _LIKELY)


def _key(name: str) -> str:
    folder, slash, base = name.rpartition("/")
    return f"{folder}{slash}{base.partition('.')[0]}"


def _list_tar(file: Path) -> _Members:
    """The images and labels of a tar."""
    found = _Members()
    dotted: list[tuple[str, str, str, bytes]] = []  # of KEY.v2.cls: the key, .v2, .cls, content
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                base = member.name.rpartition("/")[2]
                stem, dot, rest = base.partition(".")
                if not member.isreg():
                    continue
                if not stem or "__MACOSX" in member.name.split("/"):
                    continue  # hidden
                key, suffix = _key(member.name), f"{dot}{rest}".lower()
                if os.path.splitext(suffix)[1] in SUFFIXES or suffix in SUFFIXES:
                    kinds = found.images.setdefault(key, {})
                    if suffix in kinds:
                        raise InputError(f"{file} has two images {member.name}")
                    kinds[suffix] = member.name, member.offset_data, member.size
                elif (last := os.path.splitext(suffix)[1] or suffix) in (*_PLAIN, _JSON) and (
                    member.size <= _LABEL_LIMIT
                ):
                    content = tar.extractfile(member)
                    assert content is not None  # a regular file has one
                    if last == suffix:
                        _add_labels(found, key, suffix, content.read())
                    else:
                        dotted.append((key, suffix.removesuffix(last), last, content.read()))
                else:
                    found.other[suffix] += 1
            end = tar.offset
    except (tarfile.TarError, EOFError) as error:
        raise InputError(f"{file} is damaged, cut off or compressed ({error})") from error
    if file.stat().st_size < end + tarfile.BLOCKSIZE:  # tarfile does not need the end
        raise InputError(f"{file} is cut off: fetch it again")
    for key, middle, last, label in dotted:
        images = [os.path.splitext(suffix)[0] for suffix in found.images.get(key, {})]
        if images == [middle] and key not in found.labels.get(last, {}):
            _add_labels(found, key, last, label)
        else:
            found.other[middle + last] += 1
    return found


def _add_labels(found: _Members, key: str, suffix: str, content: bytes) -> None:
    text = content.decode("utf-8-sig", "replace").strip()
    if suffix != _JSON:
        if len(text) > _LONGEST or "\n" in text:
            found.other[suffix] += 1
        else:
            found.labels.setdefault(suffix, {})[key] = text or None
        return
    try:
        facts = json.loads(text)
    except ValueError:
        facts = None
    for name, value in facts.items() if isinstance(facts, dict) else [("label", facts)]:
        try:
            found.labels.setdefault(name, {})[key] = label_text(value)
        except InputError:
            continue


def _labelled(
    file: Path, tar: _Members, column: str, other: Counter[str]
) -> list[tuple[str, int, int, str]]:
    """Name, first byte, size and label of each image; further images of a key count as others."""
    labels, listed = tar.labels.get(column, {}), []
    for key, kinds in tar.images.items():
        plain = [suffix for suffix in kinds if suffix in SUFFIXES]
        if len(plain or kinds) > 1:
            names = ", ".join(name for name, *_ in kinds.values())
            raise InputError(
                f"{file} has two images for {key!r}, their name up to the first dot: {names}"
            )
        (chosen,) = plain or kinds
        other.update(suffix for suffix in kinds if suffix != chosen)
        label = labels.get(key)
        if not label:
            raise InputError(
                f"{file} has {kinds[chosen][0]} but no {key}{column} for its class"
                if column in _PLAIN
                else f"{file} has {kinds[chosen][0]} but no {column!r} in {key}.json for its class"
            )
        listed.append((*kinds[chosen], label))
    return listed
