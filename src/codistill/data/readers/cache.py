"""Decoded data sets in the cache, so that they are decoded once."""

import hashlib
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file

from codistill import seals
from codistill.data.dataset import Dataset, Split
from codistill.errors import InputError
from codistill.files import cache_path, stats_of, writing_alone, written
from codistill.messages import note
from codistill.tensor_files import read_weights, sealed_metadata

LAYOUT = 2  # raise it when decoding or the file's layout changes


def cache_file(name: str, files: list[Path]) -> Path:
    """The path in the cache of a decoded data set. It changes if one of the files changes.

    Args:
        name: name of the data set.
        files: absolute paths of the files it is decoded from.
    """
    return cache_path(name, LAYOUT, name, *stats_of(files)).with_suffix(".safetensors")


def fingerprint(train: Split, test: Split, val: Split | None = None) -> str:
    """SHA-256 of pixels and labels, hexadecimal: the same for every form of a data set."""
    digest = hashlib.sha256()
    for split in (train, test, val):
        if split is None:
            continue
        digest.update(split.images.contiguous().numpy().data)
        digest.update(split.labels.numpy().astype("<i8").data)
    return digest.hexdigest()


def load_cached(path: Path) -> Dataset | None:
    """Reads a data set from the cache. Returns None if there is no file, or a damaged one."""
    if not path.exists():
        return None
    try:
        tensors, facts = read_weights(path)

        def split(name: str) -> Split:
            return Split(tensors[f"{name}.images"], tensors[f"{name}.labels"])

        val = split("val") if "val.labels" in tensors else None
        about = facts["name"], split("train"), split("test"), tuple(facts["classes"])
        return Dataset(*about, facts["fingerprint"], val)
    except (InputError, LookupError) as error:
        note(f"{path} cannot be read and is made again: {error}")
        return None


def save_cached(path: Path, dataset: Dataset) -> None:
    """Writes a data set to the cache. A folder that cannot be written only gives a warning."""
    tensors = {
        f"{name}.{field}": getattr(split, field).contiguous()
        for name, split in dataset.splits.items()
        for field in ("images", "labels")
    }
    facts = {k: getattr(dataset, k) for k in ("name", "classes", "fingerprint")}
    try:
        with writing_alone(path), written(path) as temporary:
            save_file(tensors, temporary, metadata=sealed_metadata(facts))
            seals.seal(temporary)
    except (InputError, OSError, SafetensorError) as error:
        note(f"{path} cannot be written, so the data is decoded again next time: {error}")
