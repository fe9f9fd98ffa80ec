"""Batches of encoded images: read, decoded, cut and augmented by workers, normalised on the device.

What is drawn for an image depends on (seed, epoch, its place in the split, view) alone: neither the
number of workers nor a training that is taken up again changes a batch.
"""

import functools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from codistill.data.batch import Batch
from codistill.data.batches.broken import BrokenImages
from codistill.data.batches.order import check_batch_size, count_batches, mix
from codistill.data.batches.photograph import (
    EVAL_CROP,
    EVAL_SPARE,
    Box,
    BrokenImageError,
    centre_box,
    load_crops,
    random_box,
)
from codistill.data.batches.rand_augment import RAND_AUGMENT, rand_augment
from codistill.data.batches.workers import Workers
from codistill.data.encoded import EncodedSplit, Store
from codistill.data.normalisation import Normalisation
from codistill.errors import InputError
from codistill.importing import optional

_TRIES = 20  # images to take in place of a broken one; a tenth may be broken: 1 in 10**20 fails


@dataclass(frozen=True)
class CropAugmentation:
    """A random part of the image, resized, perhaps mirrored.

    Attributes:
        image_size: S, height and width of what the networks see, in pixels.
        min_scale: the least share of the image's area that is cut out; the largest is 1.
        flip: whether to mirror every second image.
        rand_augment: strength of RandAugment's two operations, 1 to 30; 0: without.
    """

    image_size: int = 224
    min_scale: float = 0.08
    flip: bool = True
    rand_augment: int = 0


class StreamedTrainBatches:
    """One pass over encoded images in random order, augmented; a new order in every epoch.

    A broken image is replaced by another of the split, with that one's label.

    Args:
        split: N images to train on.
        batch_size: B. The last batch is smaller; one of a single image is left out.
        normalisation: applied last, on the device.
        augmentation: of every view.
        views: V, differently augmented versions of each image, which is decoded once.
        seed: with the epoch and the step it determines every batch.
        workers: processes that read; 0: none but this one. See `Workers`.
        device: where the batches go.
        broken: where broken images are noted.
    """

    def __init__(
        self,
        split: EncodedSplit,
        batch_size: int,
        normalisation: Normalisation,
        augmentation: CropAugmentation | None = None,
        views: int = 1,
        seed: int = 0,
        workers: int = 0,
        device: torch.device | str = "cpu",
        broken: BrokenImages | None = None,
    ):
        check_batch_size(len(split), batch_size)
        optional("PIL", "reading encoded images")
        self.split = split
        self.batch_size = batch_size
        self.normalisation = normalisation
        self.augmentation = augmentation or CropAugmentation()
        self.views = views
        self.seed = seed
        self.device = torch.device(device)
        self.broken = BrokenImages(len(split)) if broken is None else broken
        if self.augmentation.rand_augment:
            optional("torchvision", RAND_AUGMENT)
        work = _Augmented(split.store, split.index, self.augmentation, seed)
        pin = self.device.type == "cuda"
        self._workers = Workers(work, min(workers, len(self)), pin, keep=True)
        self.start_at(0)

    def __len__(self) -> int:
        """Steps in a whole epoch."""
        return count_batches(len(self.split), self.batch_size)

    @property
    def images(self) -> int:
        """How many there are in the split."""
        return len(self.split)

    def start_at(self, epoch: int, step: int = 0) -> None:
        """Chooses the epoch that the next pass is, and the step at which it begins."""
        self._epoch, self._start = epoch, step

    def __iter__(self) -> Iterator[Batch]:
        rng = torch.Generator().manual_seed(mix(self.seed, self._epoch, 0))
        order = torch.randperm(len(self.split), generator=rng).tolist()
        B = self.batch_size
        keys = [
            _Key(order[step * B : (step + 1) * B], self._epoch, self.views)
            for step in range(self._start, len(self))
        ]
        yield from _batches(self, self._workers(keys))


class StreamedEvalBatches:
    """One pass over encoded images in their own order: the middle of each, not augmented.

    Broken images are left out.

    Args:
        split: N images.
        batch_size: B.
        normalisation: that of the training.
        image_size: S, height and width of what the networks see, in pixels: the middle 7/8.
        workers: processes that read; 0: none but this one. See `Workers`.
        device: where the batches go.
        broken: where broken images are noted.
    """

    def __init__(
        self,
        split: EncodedSplit,
        batch_size: int,
        normalisation: Normalisation,
        image_size: int = 224,
        workers: int = 0,
        device: torch.device | str = "cpu",
        broken: BrokenImages | None = None,
    ):
        optional("PIL", "reading encoded images")
        self.split = split
        self.batch_size = batch_size
        self.normalisation = normalisation
        self.image_size = image_size
        self.workers = workers
        self.device = torch.device(device)
        self.broken = BrokenImages(len(split)) if broken is None else broken
        self._left_out: set[int] = set()  # places
        work = _Centred(split.store, split.index, image_size)
        self._workers = Workers(work, min(workers, len(self)), self.device.type == "cuda")

    def __len__(self) -> int:
        return -(-len(self.split) // self.batch_size)

    @property
    def images(self) -> int:
        """How many there are in the split."""
        return len(self.split)

    def __iter__(self) -> Iterator[Batch]:
        yield from _batches(self, self._workers(self._keys()))

    def pixels(self) -> Iterator[Tensor]:
        """The images of each batch before they are normalised: uint8, (b, S, S, 3)."""
        for _, images, broken in self._workers(self._keys()):
            _note(self, broken)
            yield images[0]

    def take(self, index: Int64[Tensor, "n"]) -> "StreamedEvalBatches":
        """Batches of some images of the split, in that order."""
        return StreamedEvalBatches(
            self.split.take(index),
            self.batch_size,
            self.normalisation,
            self.image_size,
            self.workers,
            self.device,
            self.broken,
        )

    def unbroken(self) -> Int64[Tensor, "N"]:
        """The places in the split of the images that a pass, which is over, has yielded."""
        places = (place for place in range(len(self.split)) if place not in self._left_out)
        return torch.tensor(list(places), dtype=torch.int64)

    def _keys(self) -> list["_Key"]:
        places, B = list(range(len(self.split))), self.batch_size
        return [_Key(places[start : start + B]) for start in range(0, len(places), B)]


class _Key(NamedTuple):
    """What a batch is made of: places in the split, and for training the epoch and views."""

    places: Sequence[int]
    epoch: int = 0
    views: int = 1


# The places of the images that came out, the images (V, B, S, S, 3), the broken and why.
_Loaded = tuple[list[int], Any, list[tuple[int, str]]]


def _batches(
    of: StreamedTrainBatches | StreamedEvalBatches, results: Iterator[_Loaded]
) -> Iterator[Batch]:
    for places, images, broken in results:
        _note(of, broken)
        if not places:
            continue
        views = images.to(of.device, non_blocking=True)
        labels = of.split.labels[places].to(of.device, non_blocking=True)
        yield Batch([of.normalisation(view) for view in views], labels)


def _note(of: StreamedTrainBatches | StreamedEvalBatches, broken: list[tuple[int, str]]) -> None:
    of.broken.add((of.split.name(place), reason) for place, reason in broken)
    if isinstance(of, StreamedEvalBatches):
        of._left_out.update(place for place, _ in broken)


@dataclass(frozen=True)
class _Augmented:
    """What a worker does for training."""

    store: Store
    index: np.ndarray
    augmentation: CropAugmentation
    seed: int

    def __call__(self, key: _Key) -> _Loaded:
        size = self.augmentation.image_size
        images = np.empty((key.views, len(key.places), size, size, 3), np.uint8)
        places: list[int] = []
        broken: list[tuple[int, str]] = []
        for b, wanted in enumerate(key.places):
            place = wanted
            for attempt in range(_TRIES):
                try:
                    images[:, b] = self._views(place, key.epoch, key.views)
                    break
                except BrokenImageError as error:
                    broken.append((place, str(error)))
                    place = mix(self.seed, key.epoch, wanted, 1, attempt) % len(self.index)
            else:
                raise InputError(f"{_TRIES} images of {_TRIES} are broken: {broken[-1][1]}")
            places.append(place)
        return places, images, broken

    def _views(self, place: int, epoch: int, views: int) -> list[np.ndarray]:
        from PIL import ImageOps

        seeds = [mix(self.seed, epoch, place, 0, view) for view in range(views)]
        draws = [random.Random(seed) for seed in seeds]

        def boxes(width: int, height: int) -> list[Box]:
            return [random_box(width, height, self.augmentation.min_scale, rng) for rng in draws]

        read = functools.partial(self.store.read, int(self.index[place]))
        cut = load_crops(read, boxes, self.augmentation.image_size)
        if self.augmentation.flip:
            cut = [
                ImageOps.mirror(image) if rng.random() < 0.5 else image
                for image, rng in zip(cut, draws, strict=True)
            ]
        if strength := self.augmentation.rand_augment:
            cut = [rand_augment(x, strength, seed) for x, seed in zip(cut, seeds, strict=True)]
        return [np.asarray(image) for image in cut]


@dataclass(frozen=True)
class _Centred:
    """What a worker does for evaluation."""

    store: Store
    index: np.ndarray
    size: int

    def __call__(self, key: _Key) -> _Loaded:
        places: list[int] = []
        images: list[np.ndarray] = []
        broken: list[tuple[int, str]] = []
        for place in key.places:
            read = functools.partial(self.store.read, int(self.index[place]))
            try:
                (image,) = load_crops(read, _middle, self.size, EVAL_SPARE)
            except BrokenImageError as error:
                broken.append((place, str(error)))
            else:
                places.append(place)
                images.append(np.asarray(image))
        shape = (1, len(images), self.size, self.size, 3)
        return places, np.array(images, np.uint8).reshape(shape), broken


def _middle(width: int, height: int) -> list[Box]:
    return [centre_box(width, height, EVAL_CROP)]
