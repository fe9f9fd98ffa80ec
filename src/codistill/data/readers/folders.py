"""Walks through folders of images."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from codistill.data.readers.decode import SUFFIXES

_NOT_OURS = {"__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN"}  # made by systems, not by people
_NOT_OURS |= {"Thumbs.db", "desktop.ini"}


def is_visible(path: Path) -> bool:
    """Whether a file or folder is neither hidden nor made by a system."""
    return not path.name.startswith(".") and path.name not in _NOT_OURS


def subfolders(folder: Path) -> list[Path]:
    """The folders inside a folder, sorted, without hidden ones."""
    return sorted(path for path in folder.iterdir() if is_visible(path) and path.is_dir())


def is_image(file: Path) -> bool:
    """Whether a file has the suffix of an image, and is not hidden."""
    hidden = file.name.startswith(".")
    return not hidden and file.suffix.lower() in SUFFIXES and file.is_file()


def has_images(folder: Path) -> bool:
    return any(map(is_image, folder.iterdir()))


def is_filled(folder: Path) -> bool:
    """Whether a folder has an image, at any depth."""
    return next(list_images(folder.parent, folder, Counter()), None) is not None


def count_images(folder: Path) -> int:
    return sum(1 for _ in list_images(folder.parent, folder, Counter()))


def list_images(root: Path, folder: Path, ignored: Counter[str]) -> Iterator[tuple[str, int]]:
    """Name relative to root and size in bytes of every image in a folder, at any depth.

    Args:
        root: folder that names are relative to.
        folder: folder inside root.
        ignored: counts the suffixes of other files. Hidden files are not counted.
    """
    above = tuple((stat.st_dev, stat.st_ino) for stat in map(os.stat, {root, folder.parent}))
    yield from _walk(str(folder), folder.relative_to(root).as_posix(), ignored, above)


def _walk(
    path: str, name: str, ignored: Counter[str], above: tuple[tuple[int, int], ...]
) -> Iterator[tuple[str, int]]:
    stat = os.stat(path)
    if (here := (stat.st_dev, stat.st_ino)) in above:  # a link to a folder above it
        return
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name in _NOT_OURS:
                continue
            inner = f"{name}/{entry.name}"
            if entry.is_dir():
                yield from _walk(entry.path, inner, ignored, (*above, here))
                continue
            suffix = os.path.splitext(entry.name)[1].lower()
            # Reading a pipe would wait. A link to nothing is listed, and found to be broken later.
            if suffix in SUFFIXES and (entry.is_file() or entry.is_symlink()):
                yield inner, _size(entry)
            else:
                ignored[suffix or "without a suffix"] += 1


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError:  # a link to nothing
        return 0
