"""CIFAR's "python version": pickles of flat images, in an archive or extracted."""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from codistill.data.dataset import Split
from codistill.data.readers.cifar_pickles import pixel_rows, read_pickle
from codistill.errors import InputError

MEMBER_LIMIT = 400_000_000  # bytes; the largest real member has 155 million
ARCHIVE_LIMIT = 1_000_000_000  # bytes once unpacked; the real archives have 190 million


@dataclass(frozen=True)
class Cifar:
    """How CIFAR-10 or CIFAR-100 is published.

    Attributes:
        classes: number of classes.
        archive: file name of the archive.
        md5: published checksum of the archive.
        folder: the only folder in the archive.
        train: its files of training images, in order.
        test: its file of test images.
        meta: its file of class names.
        labels: key of the labels in `train` and `test`.
        names: key of the class names in `meta`.
        columns: names of the column of labels in tables, the likeliest first.
    """

    classes: int
    archive: str
    md5: str
    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    labels: bytes
    names: bytes
    columns: tuple[str, ...]

    @property
    def url(self) -> str:
        return f"https://www.cs.toronto.edu/~kriz/{self.archive}"

    @property
    def members(self) -> tuple[str, ...]:
        return (*self.train, self.test, self.meta)


CIFARS = {
    "cifar10": Cifar(
        classes=10,
        archive="cifar-10-python.tar.gz",
        md5="c58f30108f718f92721af3b95e74349a",
        folder="cifar-10-batches-py",
        train=tuple(f"data_batch_{i}" for i in range(1, 6)),
        test="test_batch",
        meta="batches.meta",
        labels=b"labels",
        names=b"label_names",
        columns=("label",),
    ),
    "cifar100": Cifar(
        classes=100,
        archive="cifar-100-python.tar.gz",
        md5="eb9058c3a382ffc7106e4002c42a8d85",
        folder="cifar-100-python",
        train=("train",),
        test="test",
        meta="meta",
        labels=b"fine_labels",
        names=b"fine_label_names",
        columns=("fine_label", "label"),
    ),
}


def read_extracted(cifar: Cifar, files: list[Path]) -> tuple[Split, Split, tuple[str, ...]]:
    """Train, test and class names from the files that were extracted from the archive."""
    contents = {}
    for file in files:
        contents[file.name] = read_pickle(file.read_bytes(), str(file))
    return _assemble(cifar, contents, files[0].parent)


def read_archive(cifar: Cifar, archive: Path) -> tuple[Split, Split, tuple[str, ...]]:
    """Train, test and class names from the archive. Nothing is extracted to the disk."""
    wanted = {f"{cifar.folder}/{member}": member for member in cifar.members}
    contents = {}
    try:
        for name, data in _regular_files(archive, set(wanted)):
            contents[wanted[name]] = read_pickle(data, f"{archive}: {name}")
    except InputError:
        raise
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
        raise InputError(f"{archive} is damaged or cut off ({error}): fetch it again") from error
    absent = [name for name, member in wanted.items() if member not in contents]
    if absent:
        raise InputError(f"{archive} holds no {absent[0]}: is it {cifar.archive}?")
    return _assemble(cifar, contents, archive)


class _Limited:
    """A stream that refuses to unpack more than ARCHIVE_LIMIT bytes."""

    def __init__(self, stream: gzip.GzipFile, path: Path):
        self.stream = stream
        self.path = path
        self.left = ARCHIVE_LIMIT

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise InputError(f"{self.path} unpacks to more than {ARCHIVE_LIMIT} bytes: refused")
        return data


def _regular_files(archive: Path, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    """Name and content of the wanted members that are plain files. Links are not followed."""
    with gzip.open(archive) as unpacked:
        stream = _Limited(unpacked, archive)
        with tarfile.open(fileobj=stream, mode="r|") as tar:  # type: ignore[call-overload]
            for member in tar:
                if member.size > MEMBER_LIMIT:
                    raise InputError(f"{archive}: {member.name} has {member.size} bytes: refused")
                name = member.name.removeprefix("./")
                content = tar.extractfile(member) if member.isreg() and name in wanted else None
                if content is not None:
                    yield name, content.read()
        while stream.read(1 << 20):  # gzip compares its checksum at the very end
            pass


def _assemble(
    cifar: Cifar, contents: dict[str, dict[bytes, object]], where: Path
) -> tuple[Split, Split, tuple[str, ...]]:
    names = contents[cifar.meta].get(cifar.names)
    if not isinstance(names, list) or not all(isinstance(name, bytes) for name in names):
        raise InputError(f"{where}: {cifar.meta} has no list of {cifar.names.decode()}")
    train = [_batch(cifar, contents[name], f"{where}: {name}") for name in cifar.train]
    test = _batch(cifar, contents[cifar.test], f"{where}: {cifar.test}")
    joined = Split(
        torch.cat([batch.images for batch in train]), torch.cat([batch.labels for batch in train])
    )
    return joined, test, tuple(name.decode("utf-8", "replace") for name in names)


def _batch(cifar: Cifar, content: dict[bytes, object], where: str) -> Split:
    rows = pixel_rows(content.get(b"data"), where)
    labels = content.get(cifar.labels)
    # `type` and a range, because True is an int in Python, and 2**70 is too large for torch.
    if not isinstance(labels, list) or not all(
        type(label) is int and 0 <= label < cifar.classes for label in labels
    ):
        raise InputError(
            f"{where}: {cifar.labels.decode()} is not a list of numbers 0 to {cifar.classes - 1}"
        )
    if len(labels) != len(rows):
        raise InputError(f"{where} has {len(rows)} images and {len(labels)} labels")
    images = torch.from_numpy(_channels_last(rows))
    return Split(images, torch.tensor(labels, dtype=torch.int64))


def _channels_last(rows: UInt8[np.ndarray, "n 3072"]) -> UInt8[np.ndarray, "n 32 32 3"]:
    """Images with channels last, from rows of all red, then green, then blue pixels."""
    return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1).copy(order="C")
