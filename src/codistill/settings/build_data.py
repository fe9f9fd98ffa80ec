"""Builds the batches of a run from its settings."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from codistill import distributed
from codistill.data.batches.boxes import EVAL_CROP
from codistill.data.batches.broken import BrokenImages
from codistill.data.batches.copies import place_of_copies, with_copies
from codistill.data.batches.depth import notes_on_depth
from codistill.data.batches.in_memory import Augmentation, EvalBatches, TrainBatches
from codistill.data.batches.mixing import MixedBatches, Mixing, balanced_weights
from codistill.data.batches.streamed import (
    CropAugmentation,
    StreamedEvalBatches,
    StreamedTrainBatches,
)
from codistill.data.batches.workers import available_cores
from codistill.data.by_name import IN_MEMORY, check_name, load_dataset, open_dataset
from codistill.data.dataset import S, take_per_class
from codistill.data.division import Division, divide, division_notes
from codistill.data.encoded import EncodedDataset, EncodedSplit
from codistill.data.normalisation import IMAGENET, Normalisation
from codistill.errors import InputError
from codistill.files import place_of
from codistill.settings.config import Config
from codistill.settings.data_config import DataConfig
from codistill.settings.fitting import fitting_batch_size

IMAGE_SIZE = 224  # of streamed images, where nothing is said

_AUGMENTATION = {"digits": (1, False)}  # pad, flip: a mirrored 2 is no 2, and 8 pixels are few
_DEFAULT_AUGMENTATION = (4, True)
_MIN_SCALE = 0.08
_EVAL_BATCH = 500
_EVAL_BATCH_ON_CPU = 128  # feature maps of more than that leave its caches
STREAMED_EVAL_BATCH = 100  # 15 MB at 224 x 224; small enough to be spread over the workers
_OF_READERS = ("label_column", "image_column", "splits", "bits")
_MEASURED = 2000  # images that a normalisation is estimated from


@dataclass(frozen=True)
class Data:
    """A data set in batches, on the device of the training.

    Attributes:
        train: the batches to train on, augmented.
        evaluate_on: the batches to evaluate on by name: "val", if images are held out, and "test".
        classes: the names of the C classes, in the order of the logits.
        normalisation: the mean and standard deviation that all batches are normalised by.
        image_size: height and width of the images that networks see, in pixels.
        fingerprint: a hash of the whole data set.
        settings: the settings, with every default written out that depends on the data.
        notes: remarkable facts about the data, one line each.
        broken: the images that turn out to be broken while they are read.
        crop: the share of the largest middle square that evaluation sees.
        taken: what was taken for splits, classes and labels, one line each.
    """

    train: TrainBatches | StreamedTrainBatches
    evaluate_on: Mapping[str, EvalBatches | StreamedEvalBatches]
    classes: tuple[str, ...]
    normalisation: Normalisation
    image_size: tuple[int, int]
    fingerprint: str
    settings: DataConfig
    notes: tuple[str, ...]
    broken: BrokenImages
    crop: float = 1.0
    taken: tuple[str, ...] = ()

    @property
    def val(self) -> EvalBatches | StreamedEvalBatches | None:
        """The training images that are held out to choose by, or None."""
        return self.evaluate_on.get("val")

    @property
    def test(self) -> EvalBatches | StreamedEvalBatches:
        """The images that are only reported on."""
        return self.evaluate_on["test"]


def build_data(config: Config, device: torch.device) -> Data:
    """The batches of a configuration, of one view."""
    check_name(config.data.name)
    _refuse_what_does_not_apply(config.data)
    build = _build_in_memory if config.data.name in IN_MEMORY else _build_streamed
    data = build(config, device)
    data.train.most_steps = config.limit_steps
    return data


def describe_data(c: DataConfig) -> tuple[int, tuple[int, int]]:
    """Number of classes, and height and width of the images. Reads as little as possible."""
    from codistill.names import DATASETS

    check_name(c.name)
    _refuse_what_does_not_apply(c)
    known = DATASETS[c.name]
    classes = known.num_classes
    if classes is None:
        classes = len(open_with(c).classes)
    size = c.image_size or IMAGE_SIZE
    return classes, known.image_size or (size, size)


def _refuse_what_does_not_apply(c: DataConfig) -> None:
    in_memory = c.name in IN_MEMORY
    of_others = ["pad", "pad_mode"]
    if in_memory:
        of_others = ["image_size", "min_scale", "cache", "workers", "test_fraction", *_OF_READERS]
        why = "is held in memory at its own size"
    else:
        why = "is cut to data.image_size from images of any size"
    defaults = DataConfig()
    for option in of_others:
        if getattr(c, option) != getattr(defaults, option):
            raise InputError(f"data.{option} is not for {c.name}, which {why}: leave it out")


def _build_in_memory(config: Config, device: torch.device) -> Data:
    c = config.data
    dataset = load_dataset(c.name, c.root)
    division = _divide(dataset.splits, c)
    notes = division_notes(division, dataset.classes)
    measures = c.normalisation != "imagenet" and not (c.mean and c.std)
    normalisation = _given(c, Normalisation.of(division.train) if measures else IMAGENET)
    division = dataclasses.replace(
        division,
        train=division.train.to(device),
        val=None if division.val is None else division.val.to(device),
        test=division.test.to(device),
    )
    pad, flip = _AUGMENTATION.get(c.name, _DEFAULT_AUGMENTATION)
    pad, flip = pad if c.pad is None else c.pad, flip if c.flip is None else c.flip
    images = division.train
    eval_batch = _EVAL_BATCH_ON_CPU if device.type == "cpu" else _EVAL_BATCH
    return Data(
        train=TrainBatches(
            images,
            batch_size_of(config, len(division.train)),
            normalisation,
            Augmentation(pad, c.pad_mode, flip, c.rand_augment),
            seed=config.seed,
            class_group=c.class_group,
        ),
        evaluate_on={
            name: EvalBatches(split, eval_batch, normalisation)
            for name, split in division.evaluated().items()
        },
        classes=dataset.classes,
        normalisation=normalisation,
        image_size=(images.images.shape[1], images.images.shape[2]),
        fingerprint=dataset.fingerprint,
        settings=_resolved(c, division, normalisation, pad=pad, flip=flip),
        notes=notes,
        broken=BrokenImages(len(images)),
    )


def _build_streamed(config: Config, device: torch.device) -> Data:
    c = config.data
    dataset = open_with(c)
    dark = notes_on_depth(dataset) if c.bits is None else ()
    size = IMAGE_SIZE if c.image_size is None else c.image_size
    if c.cache:
        _require_enough_pixels(c.cache, size)
        dataset = with_copies(dataset, absolute_root(c), c.cache)
    division = _divide(dataset.splits, c)
    taken = dataset.taken()
    if c.cache:
        used = division.train, *division.evaluated().values()
        taken.append(place_of_copies(division.train, sum(map(len, used))))
    workers = c.workers
    if workers is None:
        workers = max(1, available_cores() // distributed.place().local_size)
    flip = True if c.flip is None else c.flip
    min_scale = _MIN_SCALE if c.min_scale is None else c.min_scale
    broken = BrokenImages(_count(dataset))
    measures = c.normalisation == "data" and not (c.mean and c.std)
    measured = _measure(division.train, size, workers, broken) if measures else IMAGENET
    normalisation = _given(c, measured)
    return Data(
        train=StreamedTrainBatches(
            division.train,
            batch_size_of(config, len(division.train)),
            normalisation,
            CropAugmentation(size, min_scale, flip, c.rand_augment),
            seed=config.seed,
            class_group=c.class_group,
            workers=workers,
            device=device,
            broken=broken,
        ),
        evaluate_on={
            name: StreamedEvalBatches(
                split, STREAMED_EVAL_BATCH, normalisation, size, workers, device, broken
            )
            for name, split in division.evaluated().items()
        },
        classes=dataset.classes,
        normalisation=normalisation,
        image_size=(size, size),
        fingerprint=dataset.fingerprint,
        settings=_resolved(
            c,
            division,
            normalisation,
            flip=flip,
            image_size=size,
            min_scale=min_scale,
            workers=workers,
            test_fraction=division.test_fraction,
        ),
        notes=(*dataset.notes, *dark, *division_notes(division, dataset.classes)),
        taken=tuple(taken),
        broken=broken,
        crop=EVAL_CROP,
    )


def _require_enough_pixels(cache: int, size: int) -> None:
    """Raises InputError if evaluation would enlarge what it cuts out of copies."""
    if (fewest := math.ceil(size / EVAL_CROP)) > cache:
        raise InputError(
            f"data.cache is {cache}, and images are cut to {size} pixels: give {fewest} or more, "
            "or a smaller data.image_size"
        )


def batch_size_of(config: Config, images: int) -> int:
    """Images per step: as set, or what suits the number of training images."""
    return config.batch_size or fitting_batch_size(images)


def open_with(c: DataConfig, fewest: int = 2) -> EncodedDataset:
    """The data set of a configuration, its images still encoded; of so many classes at least."""
    given = {option: getattr(c, option) for option in _OF_READERS}
    return open_dataset(c.name, c.root, **given, fewest=fewest)


def _divide(splits: Mapping[str, S], c: DataConfig) -> Division[S]:
    """Divides the images, and takes as many per class for training as the settings ask for."""
    division = divide(splits, c.val_fraction, c.test_fraction, c.split_seed)
    if c.images_per_class is None and c.fraction is None:
        return division
    train = take_per_class(division.train, c.images_per_class, c.split_seed, c.fraction or 1.0)
    return dataclasses.replace(division, train=train)


def _measure(split: EncodedSplit, size: int, workers: int, broken: BrokenImages) -> Normalisation:
    """The normalisation, estimated from the middles of up to 2,000 evenly chosen images."""
    chosen = torch.linspace(0, len(split) - 1, min(_MEASURED, len(split))).round().long()
    batches = StreamedEvalBatches(
        split.take(chosen), STREAMED_EVAL_BATCH, IMAGENET, size, workers, broken=broken
    )
    return Normalisation.of_pixels(batches.pixels())


def _count(dataset: EncodedDataset) -> int:
    return sum(map(len, dataset.splits.values()))


def _given(c: DataConfig, normalisation: Normalisation) -> Normalisation:
    """The mean and standard deviation of the settings; where they have none, those given."""
    if c.mean:
        normalisation = dataclasses.replace(normalisation, mean=(c.mean[0], c.mean[1], c.mean[2]))
    if c.std:
        normalisation = dataclasses.replace(normalisation, std=(c.std[0], c.std[1], c.std[2]))
    return normalisation


def _resolved(
    c: DataConfig, division: Division[S], normalisation: Normalisation, **found: Any
) -> DataConfig:
    return dataclasses.replace(
        c,
        root=absolute_root(c),
        val_fraction=division.val_fraction,
        mean=list(normalisation.mean),
        std=list(normalisation.std),
        **found,
    )


def absolute_root(c: DataConfig) -> str | None:
    """The place of the images as an absolute path; a name on the Hub stays a name."""
    if c.root is None or (c.name == "hub" and not place_of(c.root.partition(":")[0]).exists()):
        return c.root
    return str(place_of(c.root).absolute())


def mix_labels(config: Config, train: Any, num_classes: int) -> Any:
    """The training batches, with labels smoothed, mixed or weighted as the configuration says."""
    labels = train.split.labels.cpu()
    balanced = config.class_weights == "balanced"
    mixing = Mixing(
        label_smoothing=config.label_smoothing,
        mixup=config.mixup,
        cutmix=config.cutmix,
        class_weights=balanced_weights(labels, num_classes) if balanced else None,
    )
    return MixedBatches(train, num_classes, mixing, config.seed) if mixing else train
