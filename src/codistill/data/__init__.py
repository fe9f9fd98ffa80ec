"""Data sets: where they are read from, how they are held, and the batches made of them."""

from codistill.data.dataset import Dataset, Split, hold_out
from codistill.data.in_memory import (
    Augmentation,
    EvalBatches,
    Normalisation,
    TrainBatches,
    crop_and_flip,
)
from codistill.data.sources import load_dataset

__all__ = [
    "Augmentation",
    "Dataset",
    "EvalBatches",
    "Normalisation",
    "Split",
    "TrainBatches",
    "crop_and_flip",
    "hold_out",
    "load_dataset",
]
