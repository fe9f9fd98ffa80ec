"""Parquet shards with encoded images, as on the Hugging Face Hub."""

import json
import re
from pathlib import Path
from typing import Any

import torch

from codistill.data.dataset import Split
from codistill.data.readers.cifar import Cifar
from codistill.data.readers.decode import decode_images
from codistill.errors import InputError
from codistill.importing import optional

ROWS = 8192  # decoded at a time, so that the encoded images are never in memory all at once


def list_shards(root: Path, name: str) -> tuple[list[Path], list[Path]] | None:
    """The shards for train and test, or None where root is not of this form."""
    inside = sorted(path for path in root.iterdir() if path.is_dir())
    for folder in (root, root / "data", root / name, *inside):
        train, test = sorted(folder.glob("train-*.parquet")), sorted(folder.glob("test-*.parquet"))
        if train or test:
            for split, shards in (("train", train), ("test", test)):
                _check_complete(folder, split, shards)
            return train, test
    return None


def _check_complete(folder: Path, split: str, shards: list[Path]) -> None:
    if not shards:
        raise InputError(f"{folder} has parquet files but no {split}-*.parquet")
    announced = re.search(r"-of-(\d+)", shards[0].name)
    if announced and int(announced[1]) != len(shards):
        raise InputError(
            f"{folder} has {len(shards)} of {int(announced[1])} files {split}-*.parquet: "
            "fetch those that are missing"
        )


def read_shards(
    cifar: Cifar, train: list[Path], test: list[Path]
) -> tuple[Split, Split, tuple[str, ...]]:
    """Train, test and class names, decoded."""
    splits, names = [], []
    for shards in (train, test):
        parts = []
        for shard in shards:
            part, classes = _read_shard(cifar, shard)
            parts.append(part)
            names.append(classes)
            if classes != names[0]:
                raise InputError(f"{shard} has other class names than {train[0]}")
        splits.append(
            Split(torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts]))
        )
    return splits[0], splits[1], names[0]


def _read_shard(cifar: Cifar, shard: Path) -> tuple[Split, tuple[str, ...]]:
    pyarrow = optional("pyarrow", "reading parquet files")
    pq = optional("pyarrow.parquet", "reading parquet files")
    images = [torch.empty(0, 32, 32, 3, dtype=torch.uint8)]  # a shard may have no rows
    labels: list[int] = []
    try:
        with pq.ParquetFile(shard) as file:
            schema = file.schema_arrow
            image, label = _columns(cifar, schema.names, shard)
            if not pyarrow.types.is_integer(schema.field(label).type):
                raise InputError(f"{shard}: column {label!r} does not hold whole numbers")
            for batch in file.iter_batches(ROWS, columns=[image, label]):
                images.append(_decode_rows(batch.column(image), shard, len(labels)))
                labels += _checked_labels(batch.column(label), cifar, shard, len(labels))
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{shard} is damaged or cut off ({reason}): fetch it again") from error
    split = Split(torch.cat(images), torch.tensor(labels, dtype=torch.int64))
    return split, _class_names(schema.metadata, label, cifar)


def _columns(cifar: Cifar, present: list[str], shard: Path) -> tuple[str, str]:
    image = next((name for name in ("img", "image") if name in present), None)
    label = next((name for name in cifar.columns if name in present), None)
    if image is None or label is None:
        raise InputError(
            f"{shard} has the columns {', '.join(present)}: it needs 'img' or 'image', and "
            + " or ".join(map(repr, cifar.columns))
        )
    return image, label


def _decode_rows(column: Any, shard: Path, start: int) -> torch.Tensor:
    encoded = [row["bytes"] if isinstance(row, dict) else row for row in column.to_pylist()]
    for i, content in enumerate(encoded):
        if not isinstance(content, bytes):
            raise InputError(f"{shard}, row {start + i}: no image bytes are stored in the file")
    return decode_images(encoded, lambda i: f"{shard}, row {start + i}")


def _checked_labels(column: Any, cifar: Cifar, shard: Path, start: int) -> list[int]:
    labels: list[int] = column.to_pylist()
    for i, label in enumerate(labels):
        if label is None or not 0 <= label < cifar.classes:
            raise InputError(
                f"{shard}, row {start + i}: the label is {label}, not 0 to {cifar.classes - 1}"
            )
    return labels


def _class_names(metadata: dict[bytes, bytes] | None, label: str, cifar: Cifar) -> tuple[str, ...]:
    """From what `datasets` writes into the schema; numbers where a file was written otherwise."""
    try:
        names = json.loads((metadata or {})[b"huggingface"])["info"]["features"][label]["names"]
        return tuple(map(str, names))
    except (KeyError, TypeError, ValueError):
        return tuple(map(str, range(cifar.classes)))
