"""A record of the broken images of a data set, each reported once."""

from collections.abc import Iterable
from pathlib import Path

from codistill import files
from codistill.errors import InputError
from codistill.messages import note, printable

LIMIT = 0.1  # share of all images: if more are broken, something else is wrong
_NAMED = 5  # images that get a note


class BrokenImages:
    """The broken images of one data set.

    Args:
        total: number of images in the data set, broken or not.

    Attributes:
        found: name -> reason, in the order in which they were found.
    """

    def __init__(self, total: int):
        self.total = total
        self.found: dict[str, str] = {}
        self._path: Path | None = None

    def keep_in(self, path: Path) -> None:
        """Keeps the record in a file from now on, and adds what the file has to it."""
        self._path = path
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines()
            earlier = dict(line.split("\t", 1) for line in lines if "\t" in line)
            self.found = earlier | self.found
        if self.found:
            self._write()

    def add(self, images: Iterable[tuple[str, str]]) -> None:
        """Records images by name and reason, and reports the new ones.

        Raises:
            InputError: more than a tenth of all images are broken.
        """
        new = {printable(name): printable(reason) for name, reason in images}
        new = {name: reason for name, reason in new.items() if name not in self.found}
        if not new:
            return
        for name, reason in new.items():
            self.found[name] = reason
            if len(self.found) <= _NAMED:
                more = "; further ones are only written down" if len(self.found) == _NAMED else ""
                note(
                    f"image {name} is broken ({reason}): another takes its place in training, and "
                    f"evaluation leaves it out{more}"
                )
        self._write()
        if len(self.found) > LIMIT * self.total:
            name, reason = next(iter(self.found.items()))
            raise InputError(
                f"{len(self.found):,} of {self.total:,} images are broken, such as {name} "
                f"({reason}): look at all of them with codistill data check"
            )

    def _write(self) -> None:
        if self._path is not None:
            lines = "".join(f"{name}\t{reason}\n" for name, reason in self.found.items())
            files.write_text(self._path, lines)
