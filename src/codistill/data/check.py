"""Reads every image of a data set once, and reports what it holds and what to repair."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from codistill.data.balance import absent_note, count_classes
from codistill.data.batches.depth import dark_message, nearly_black
from codistill.data.batches.photograph import BrokenImageError, load_whole
from codistill.data.batches.workers import Workers
from codistill.data.division import divide, division_notes
from codistill.data.encoded import EncodedDataset, Store
from codistill.errors import InputError
from codistill.messages import quoted, shorten

_TOGETHER = 16  # images that a worker takes at once


@dataclass(frozen=True)
class Image:
    """Facts on an image that was read.

    Attributes:
        split: split of the image.
        label: class of the image.
        name: name for messages.
        size: width and height in pixels, turned as EXIF says; None if the image is broken.
        mode: mode of its pixels, such as "RGB" or "L"; if it is broken, the reason.
        contents: SHA-256 of the file.
        pixels: SHA-256 of size and pixels.
        deep: largest value of a pixel of a 16-bit image; None for others.
        frames: whether it has more frames than the first, which is used.
    """

    split: str
    label: int
    name: str
    size: tuple[int, int] | None
    mode: str
    contents: bytes
    pixels: bytes
    deep: int | None = None
    frames: bool = False


@dataclass(frozen=True)
class Findings:
    """The contents of a data set.

    Attributes:
        counts: split -> number of images of each of the C classes, including broken ones.
        images: all images.
        mend: faults to repair, one line each.
        consider: remarks, one line each.
    """

    counts: dict[str, list[int]]
    images: Sequence[Image]
    mend: Sequence[str]
    consider: Sequence[str]


def check_dataset(
    dataset: EncodedDataset, workers: int, watch: Callable[[int], None] = lambda done: None
) -> Findings:
    """Reads all images and reports on them.

    Args:
        dataset: data set of C classes.
        workers: number of processes that read; 0: this process reads.
        watch: called with the number of images read since the last call.
    """
    images = []
    for image in _read_all(dataset, workers):
        images.append(image)
        watch(1)
    counts = {
        split: count_classes(part.labels, len(dataset.classes))
        for split, part in dataset.splits.items()
    }
    mend = [*_broken(images), *_dark(dataset, images)]
    mend += [*_missing(counts, dataset.classes), *_contradictions(images, dataset)]
    consider = [*dataset.notes]
    try:
        division = divide(dataset.splits, None, None, 0)
    except InputError as error:
        mend.append(str(error))
    else:
        known = {*mend}
        consider += [n for n in division_notes(division, dataset.classes) if n not in known]
    consider += [*_frames(images), *_duplicates(images)]
    return Findings(counts, images, mend, consider)


def _read_all(dataset: EncodedDataset, workers: int) -> Iterator[Image]:
    for split, part in dataset.splits.items():
        starts = range(0, len(part), _TOGETHER)
        keys = [part.index[start : start + _TOGETHER].tolist() for start in starts]
        read = Workers(_Look(part.store, part.bits), min(workers, len(keys)))
        labels = part.labels.tolist()
        for i, facts in enumerate(fact for (group,) in read(keys) for fact in group):
            yield Image(split, labels[i], part.name(i), *facts)


_Facts = tuple[tuple[int, int] | None, str, bytes, bytes, int | None, bool]


@dataclass(frozen=True)
class _Look:
    """The work of a worker."""

    store: Store
    bits: int | None

    def __call__(self, places: list[int]) -> tuple[list[_Facts]]:
        return ([self._look(place) for place in places],)

    def _look(self, place: int) -> _Facts:
        contents = b""

        def read() -> bytes:
            nonlocal contents
            encoded = self.store.read(place)
            contents = hashlib.sha256(encoded).digest()
            return encoded

        try:
            mode, pixels, deep, frames = load_whole(read, self.bits)
        except BrokenImageError as error:
            return None, str(error), contents, b"", None, False
        digest = hashlib.sha256(str(pixels.shape).encode())
        digest.update(np.ascontiguousarray(pixels).data)
        size = pixels.shape[1], pixels.shape[0]
        return size, mode, contents, digest.digest(), deep, frames


def _broken(images: Sequence[Image]) -> Iterator[str]:
    for image in images:
        if image.size is None:
            yield f"broken: {image.name}: {image.mode}"


def _dark(dataset: EncodedDataset, images: Sequence[Image]) -> Iterator[str]:
    """Remarks on 16-bit images that come out nearly black, unless the user has said how deep."""
    bits = next(iter(dataset.splits.values())).bits
    found = [i.deep for i in images if i.deep is not None and nearly_black(i.deep, bits or 16)]
    if found and bits is None:
        yield dark_message(found, 16)


def _frames(images: Sequence[Image]) -> Iterator[str]:
    several = [image.name for image in images if image.frames]
    if several:
        yield (
            f"images of several frames, of which the first is used: {len(several):,}, such as "
            f"{several[0]}"
        )


def _missing(counts: dict[str, list[int]], classes: Sequence[str]) -> Iterator[str]:
    for split, of_classes in counts.items():
        absent = [name for name, count in zip(classes, of_classes, strict=True) if not count]
        if absent:
            yield absent_note("train" if split == "all" else split, absent)


def _groups(images: Sequence[Image]) -> Iterator[tuple[str, list[Image]]]:
    """Groups of images that are the same in every byte, or only in their pixels."""
    of_pixels: dict[bytes, list[Image]] = defaultdict(list)
    for image in images:
        if image.size is not None:
            of_pixels[image.pixels].append(image)
    for group in of_pixels.values():
        if len(group) > 1:
            same = len({image.contents for image in group}) == 1
            yield ("the same file" if same else "the same pixels"), group


def _contradictions(images: Sequence[Image], dataset: EncodedDataset) -> Iterator[str]:
    for what, group in _groups(images):
        if len({image.label for image in group}) > 1:
            named = [f"{image.name} ({quoted([dataset.classes[image.label]])})" for image in group]
            yield f"{what} in two classes: {shorten(named)}"


def _duplicates(images: Sequence[Image]) -> Iterator[str]:
    """The number of superfluous images, by split, each with an example."""
    extra: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    for what, group in _groups(images):
        splits = sorted({image.split for image in group})
        where = f"in {splits[0]}" if len(splits) == 1 else "across " + " and ".join(splits)
        if where == "in all":
            where = "in the data set"
        extra[what, where] += len(group) - 1
        shown = [min((i for i in group if i.split == s), key=lambda i: i.name) for s in splits]
        shown = shown if len(shown) > 1 else group[:2]
        examples.setdefault((what, where), " = ".join(image.name for image in shown))
    for (what, where), count in sorted(extra.items()):
        undivided = where == "in the data set"
        drawn = ", which may be drawn into train and test at once" if undivided else ""
        example = examples[what, where]
        yield f"{what} more than once {where}: {count:,} too many{drawn}, such as {example}"
