"""Data sets: where they are read from, how they are held, and the batches made of them."""

from codistill.data.dataset import Dataset, Split, hold_out
from codistill.data.encoded import EncodedDataset, EncodedSplit
from codistill.data.in_memory import (
    Augmentation,
    EvalBatches,
    Normalisation,
    TrainBatches,
    crop_and_flip,
)
from codistill.data.listings import list_dataset
from codistill.data.sources import load_dataset
from codistill.data.streamed import CropAugmentation, StreamedEvalBatches, StreamedTrainBatches

__all__ = [
    "Augmentation",
    "CropAugmentation",
    "Dataset",
    "EncodedDataset",
    "EncodedSplit",
    "EvalBatches",
    "Normalisation",
    "Split",
    "StreamedEvalBatches",
    "StreamedTrainBatches",
    "TrainBatches",
    "crop_and_flip",
    "hold_out",
    "list_dataset",
    "load_dataset",
]
