"""The files that a table of paths means, also those that are not where it says."""

import os
from collections import Counter
from pathlib import Path, PurePath

from codistill.data.readers.folders import is_image, list_images, subfolders
from codistill.errors import InputError
from codistill.messages import shorten


class Finder:
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
