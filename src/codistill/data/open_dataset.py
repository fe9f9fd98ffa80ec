"""Data sets whose images stay encoded, by name."""

from collections.abc import Callable
from pathlib import Path

from codistill.data.encoded import EncodedDataset
from codistill.data.load_dataset import SMALL, check_name, existing
from codistill.data.readers.class_folders import list_folder
from codistill.data.readers.hub import list_hub
from codistill.data.readers.parquet import list_parquet
from codistill.data.readers.published import list_imagenet
from codistill.data.readers.tars import list_tars
from codistill.errors import InputError

_LISTINGS: dict[str, Callable[[Path], EncodedDataset]] = {
    "folder": list_folder,
    "imagenet": list_imagenet,
    "webdataset": list_tars,
    **SMALL,  # for who looks at them file by file
}


def list_dataset(
    name: str, root: str | Path | None, label_column: str | None = None
) -> EncodedDataset:
    """What a data set consists of; no image is decoded.

    Args:
        name: "folder", "imagenet", "tiny_imagenet", "cinic10", "parquet", "hub" or "webdataset".
        root: where it is: a folder; for "parquet" also a pattern such as "shards/*.parquet"; for
            "hub" also the name of a data set, with a configuration after a colon.
        label_column: of "parquet" and "hub". Default: found by its name and type.
    """
    check_name(name)
    if name not in (*_LISTINGS, "parquet", "hub"):
        raise InputError(f"{name} is held in memory: there are no files of images to list")
    if root is None:
        raise InputError(f"data set {name!r} needs a place: give it by --data.root")
    if label_column is not None and name in _LISTINGS:
        raise InputError(f"data.label_column is for tables, and {name} is none: leave it out")
    if name == "hub":
        return list_hub(str(root), label_column)
    place = Path(root).expanduser()
    try:
        if name == "parquet":
            return list_parquet(place.absolute(), label_column)
        return _LISTINGS[name](existing(place).absolute())
    except OSError as error:
        where = error.filename or place
        raise InputError(f"{where} cannot be read: {error.strerror or error}") from error
