"""Small CIFARs in every form that the real ones come in, and what tests of data share."""

import io
import json
import struct
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from codistill.data import open_dataset
from codistill.data.readers.cifar import CIFARS
from codistill.errors import InputError


@dataclass
class Fake:
    """Random images, sorted by class, so that a folder of class folders has the same order."""

    name: str
    train: np.ndarray  # (n, 32, 32, 3)
    train_labels: list[int]
    test: np.ndarray
    test_labels: list[int]

    @property
    def classes(self):
        return [f"class_{i:03d}" for i in range(CIFARS[self.name].classes)]

    @property
    def cifar(self):
        return CIFARS[self.name]


def make_fake(name="cifar10", seed=0, per_class=2):
    rng = np.random.default_rng(seed)
    count = CIFARS[name].classes
    draw = lambda n: rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)  # noqa: E731
    train_labels = [i // per_class for i in range(per_class * count)]
    return Fake(name, draw(per_class * count), train_labels, draw(count), list(range(count)))


def python2_pickle(value):
    """What Python 2 and its NumPy write with protocol 2."""
    return b"\x80\x02" + _opcodes(value) + b"."


def _opcodes(value):
    if isinstance(value, bytes):
        short = len(value) < 256
        return (
            b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<i", len(value))
        ) + value
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, int):
        return b"K" + bytes([value]) if 0 <= value < 256 else b"J" + struct.pack("<i", value)
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_opcodes, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(_opcodes, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(_opcodes(k) + _opcodes(v) for k, v in value.items()) + b"u"
    dtype = b"cnumpy\ndtype\n" + _opcodes((value.dtype.str[1:].encode(), 0, 1)) + b"R"
    dtype += _opcodes((3, b"|", None, None, None, -1, -1, 0)) + b"b"
    begin = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + _opcodes((0,)) + b"U\x01btR"
    )
    fortran = value.flags.f_contiguous and not value.flags.c_contiguous
    state = b"(K\x01" + _opcodes(value.shape) + dtype + _opcodes(fortran)
    return begin + state + _opcodes(value.tobytes("A")) + b"tb"


def rows(images):
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2).reshape(len(images), -1))


def python_files(fake):
    """Member name -> its pickle."""
    key = fake.cifar.labels
    parts = np.array_split(np.arange(len(fake.train)), len(fake.cifar.train))
    files = {
        member: {b"data": rows(fake.train[part]), key: [fake.train_labels[i] for i in part]}
        for member, part in zip(fake.cifar.train, parts, strict=True)
    }
    files[fake.cifar.test] = {b"data": rows(fake.test), key: fake.test_labels}
    files[fake.cifar.meta] = {fake.cifar.names: [c.encode() for c in fake.classes]}
    return {member: python2_pickle(content) for member, content in files.items()}


def write_extracted(root, fake):
    folder = root / fake.cifar.folder
    folder.mkdir(parents=True)
    for member, data in python_files(fake).items():
        (folder / member).write_bytes(data)
    return folder


def write_archive(root, fake, files=None, extra=()):
    """The archive; `extra` members (TarInfo, bytes) come first."""
    root.mkdir(parents=True, exist_ok=True)
    archive = root / fake.cifar.archive
    with tarfile.open(archive, "w:gz") as tar:
        for info, data in extra:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for member, data in (files or python_files(fake)).items():
            info = tarfile.TarInfo(f"{fake.cifar.folder}/{member}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return archive


def splits(fake):
    return ("train", fake.train, fake.train_labels), ("test", fake.test, fake.test_labels)


def write_class_folders(root, fake):
    for split, images, labels in splits(fake):
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            folder = root / split / fake.classes[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{i:05d}.png")
    return root


def encode(image, kind="WEBP"):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, lossless=True)
    return file.getvalue()


def write_parquet(folder, fake, image="img", label=None, shards=3, named=True):
    folder.mkdir(parents=True, exist_ok=True)
    label = label or fake.cifar.columns[0]
    for split, images, labels in splits(fake):
        for shard, part in enumerate(np.array_split(np.arange(len(images)), shards)):
            structs = [{"bytes": encode(images[i]), "path": f"{i}.png"} for i in part]
            write_shard(
                folder / f"{split}-{shard:05d}-of-{shards:05d}.parquet",
                {image: structs, label: [labels[i] for i in part]},
                {label: {"names": fake.classes}} if named else None,
            )
    return folder


def refusal(name, root, read=open_dataset, **options):
    """The line that refuses the data set. `read` opens it or loads it."""
    with pytest.raises(InputError) as caught:
        read(name, root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def hub(test):
    """A test that uses the library `datasets`, whatever the library warns of."""
    for warning in (
        "DeprecationWarning",
        "FutureWarning",
        "ResourceWarning",
        "pytest.PytestUnraisableExceptionWarning",
    ):
        test = pytest.mark.filterwarnings(f"ignore::{warning}")(test)
    return pytest.mark.usefixtures("hub_library")(test)


def write_shard(path: Path, columns, features):
    table = pa.table(columns)
    if features is not None:
        info = {"info": {"features": features}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(table, path)
