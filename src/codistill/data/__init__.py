"""Data sets: reading them, holding them, and making batches of them."""

from codistill.data.batches.in_memory import Augmentation, EvalBatches, TrainBatches, crop_and_flip
from codistill.data.batches.streamed import (
    CropAugmentation,
    StreamedEvalBatches,
    StreamedTrainBatches,
)
from codistill.data.by_name import load_dataset, open_dataset
from codistill.data.dataset import Dataset, Split, hold_out
from codistill.data.encoded import EncodedDataset, EncodedSplit
from codistill.data.normalisation import Normalisation

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
    "open_dataset",
    "load_dataset",
]
