"""Data sets: where they are read from, and how they are held."""

from importlib import import_module
from typing import TYPE_CHECKING

from codistill.data.names import DATASETS

if TYPE_CHECKING:
    from codistill.data.dataset import Dataset, Split, hold_out
    from codistill.data.sources import load_dataset

__all__ = ["DATASETS", "Dataset", "Split", "hold_out", "load_dataset"]

_HOMES = {
    "Dataset": "dataset",
    "Split": "dataset",
    "hold_out": "dataset",
    "load_dataset": "sources",
}


def __getattr__(name: str) -> object:
    """Imports on first use (PEP 562): the command's help must not import torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
