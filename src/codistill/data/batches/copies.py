"""Re-encoded copies of large images in the cache, which are read faster than the images.

A copy is made when its image is first read. It ends with a digest of its bytes and of what tells
the image's present file from others. So a copy that is cut off, half written or of an earlier file
does not count, and is made again. Any number of processes may make one at once, without a lock.
"""

import contextlib
import hashlib
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from codistill.data.batches.photograph import BrokenImageError, reencoded
from codistill.data.encoded import EncodedDataset, EncodedSplit, Store
from codistill.files import cache_path, refusing_writes

LAYOUT = 1  # raise it when copies come out differently
_DIGEST = hashlib.sha256().digest_size
_LOOKED_AT = 8  # images that the size of all copies is estimated from


@dataclass(frozen=True)
class Copies:
    """The images of another store, read from their copies.

    Attributes:
        source: store of the images.
        folder: folder of the copies.
        side: short side of a copy, in pixels; see `reencoded`.
        bits: bits of a pixel that 16-bit images use; None: all.
    """

    source: Store
    folder: Path
    side: int
    bits: int | None = None

    def __len__(self) -> int:
        return len(self.source)

    def read(self, i: int) -> bytes:
        """The bytes of the copy of image i.

        Raises:
            BrokenImageError: the image is broken, and too large to be copied as it is.
            InputError: the cache cannot be written.
            OSError: the image cannot be read.
        """
        name = hashlib.sha256(os.fsencode(self.name(i))).hexdigest()
        path = self.folder / name[:2] / name[2:]
        stamp = os.fsencode(self.stamp(i))
        try:
            kept = path.read_bytes()
        except OSError:
            kept = b""
        content = kept[:-_DIGEST]
        if kept[-_DIGEST:] == hashlib.sha256(stamp + content).digest():
            return content
        content = reencoded(self.source.read(i), self.side, self.bits)
        with refusing_writes(self.folder):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content + hashlib.sha256(stamp + content).digest())
        return content

    def name(self, i: int) -> str:
        return self.source.name(i)

    def stamp(self, i: int) -> str:
        return self.source.stamp(i)


def with_copies(dataset: EncodedDataset, root: str | None, side: int) -> EncodedDataset:
    """A data set whose images are read from copies.

    Args:
        dataset: images.
        root: their place, which the folder of the copies depends on.
        side: short side of a copy, in pixels.

    Raises:
        InputError: the cache cannot be written.
    """
    splits = {}
    for split, images in dataset.splits.items():
        folder = cache_path(f"{dataset.name}-{side}", LAYOUT, root, images.bits)
        with refusing_writes(folder):
            folder.mkdir(parents=True, exist_ok=True)
        splits[split] = replace(images, store=Copies(images.store, folder, side, images.bits))
    return replace(dataset, splits=splits)


def place_of_copies(images: EncodedSplit, count: int) -> str:
    """Where copies are and about how much disk they take, in a line.

    Args:
        images: images that are read from copies. A few of them are read.
        count: number of images that copies are made of, these among them.

    Raises:
        InputError: the cache cannot be written.
    """
    from rich.filesize import decimal

    assert isinstance(images.store, Copies)
    sizes = []
    for i in torch.linspace(0, len(images) - 1, min(_LOOKED_AT, len(images))).long().tolist():
        with contextlib.suppress(BrokenImageError, OSError):
            sizes.append(len(images.read(i)))
    of_all = decimal(count * sum(sizes) // max(1, len(sizes)))
    free = decimal(shutil.disk_usage(images.store.folder).free)
    return (
        f"copies with a short side of {images.store.side}, each made when its image is first read: "
        f"about {of_all} in {images.store.folder}, where {free} are free"
    )
