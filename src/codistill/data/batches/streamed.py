"""Batches of encoded images. Workers read, decode, cut and augment; the device normalises.

The random numbers of an image depend on (seed, epoch, its place in the split, view) alone. So
neither the number of workers nor an interruption changes a batch.
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
from codistill.data.batches.boxes import EVAL_CROP, Box, centre_box, random_box
from codistill.data.batches.broken import BrokenImages
from codistill.data.batches.order import InOrder, Shuffled, mix
from codistill.data.batches.photograph import EVAL_SPARE, BrokenImageError, load_crops
from codistill.data.batches.rand_augment import RAND_AUGMENT, rand_augment
from codistill.data.batches.workers import Workers
from codistill.data.encoded import EncodedSplit, Store
from codistill.data.normalisation import Normalisation
from codistill.errors import InputError
from codistill.importing import optional

_TRIES = 20  # for an image that is not broken: if a tenth are, 1 of 10**20 draws fails


@dataclass(frozen=True)
class CropAugmentation:
    """A random part of the image, resized, perhaps mirrored.

    Attributes:
        image_size: S, height and width of the networks' input, in pixels.
        min_scale: smallest share of the image's area that is cut out; the largest is 1.
        flip: whether to mirror every second image.
        rand_augment: strength of RandAugment's two operations, 1 to 30; 0: without.
    """

    image_size: int = 224
    min_scale: float = 0.08
    flip: bool = True
    rand_augment: int = 0


class _Key(NamedTuple):
    """What a batch is made of: places in the split, and for training the epoch and views."""

    places: Sequence[int]
    epoch: int = 0
    views: int = 1


# Places of the images that were read, the images (V, B, S, S, 3), and the broken ones with reasons.
_Loaded = tuple[list[int], Any, list[tuple[int, str]]]


class _Streamed(InOrder[EncodedSplit]):
    """What training and evaluation share: workers that read, and a record of broken images."""

    device: torch.device
    broken: BrokenImages
    _workers: Workers

    def _gpu(self) -> torch.device | None:
        """The device of the batches if it is a GPU."""
        return self.device if self.device.type == "cuda" else None

    def _read(self, keys: Sequence[_Key]) -> Iterator[tuple[list[int], Tensor]]:
        """The places and the images (V, b, S, S, 3) of each batch."""
        for places, images, broken in self._workers(keys):
            self._note(broken)
            yield places, images

    def _batches(self, keys: Sequence[_Key]) -> Iterator[Batch]:
        for places, images in self._read(keys):
            if places:
                views = images.to(self.device, non_blocking=True)
                labels = self.split.labels[places]
                if self._gpu():
                    labels = labels.pin_memory()  # as the workers' images are
                labels = labels.to(self.device, non_blocking=True)
                yield Batch([self.normalisation(view) for view in views], labels)

    def _note(self, broken: list[tuple[int, str]]) -> None:
        self.broken.add((self.split.name(place), reason) for place, reason in broken)


class StreamedTrainBatches(Shuffled[EncodedSplit], _Streamed):
    """One pass over encoded images in random order, augmented; each epoch has an order of its own.

    A broken image is replaced by another one of the split, with the label of that one.

    Args:
        split: N images.
        batch_size: B. The last batch may be smaller; one of a single image is left out.
        normalisation: applied last, on the device.
        augmentation: changes each view of an image.
        views: V, number of differently augmented versions of each image, which is decoded once.
        seed: with the epoch and the step it determines every batch.
        workers: number of processes that read; 0: this process reads. See `Workers`.
        device: device of the batches.
        broken: record of the broken images.
        class_group: number of images of one class that come together, a divisor of B; 0 is off.
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
        class_group: int = 0,
    ):
        super().__init__(split, batch_size, normalisation, views, seed, class_group)
        self.augmentation = augmentation or CropAugmentation()
        self.device = torch.device(device)
        self.broken = BrokenImages(len(split)) if broken is None else broken
        if self.augmentation.rand_augment:
            optional("torchvision", RAND_AUGMENT)
        work = _Augmented(split.store, split.index, self.augmentation, seed, split.bits)
        self._workers = Workers(work, min(workers, len(self)), self._gpu())

    def __iter__(self) -> Iterator[Batch]:
        order, B = self._order(), self.batch_size
        keys, images = [], []
        for step in range(self._start, len(self)):
            places = order[step * B : (step + 1) * B]
            mine = places[self._piece(len(places))].tolist()
            keys.append(_Key(mine, self._epoch, self.views))
            images.append(len(places))
        for batch, whole in zip(self._batches(keys), images, strict=True):
            yield batch.piece_of(whole)


class StreamedEvalBatches(_Streamed):
    """One pass over encoded images in their own order: the middle of each, not augmented.

    Broken images are left out.

    Args:
        split: N images.
        batch_size: B.
        normalisation: that of the training.
        image_size: S, height and width of the networks' input, in pixels.
        workers: number of processes that read; 0: this process reads. See `Workers`.
        device: device of the batches.
        broken: record of the broken images.
        crop: share of the short side that is seen.
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
        crop: float = EVAL_CROP,
    ):
        super().__init__(split, batch_size, normalisation)
        self.image_size = image_size
        self.crop = crop
        self.workers = workers
        self.device = torch.device(device)
        self.broken = BrokenImages(len(split)) if broken is None else broken
        self._left_out: set[int] = set()  # places
        work = _Centred(split.store, split.index, image_size, split.bits, crop)
        self._workers = Workers(work, min(workers, len(self)), self._gpu())

    def __iter__(self) -> Iterator[Batch]:
        return self.dealt(0, 1)

    def dealt(self, rank: int, size: int) -> Iterator[Batch]:
        """Every batch of this number, counted from `rank` in steps of `size`."""
        yield from self._batches(self._keys()[rank::size])

    def pixels(self) -> Iterator[Tensor]:
        """The images of each batch before normalisation: uint8, (b, S, S, 3)."""
        for _, images in self._read(self._keys()):
            yield images[0]

    def take(self, index: Int64[Tensor, "n"]) -> "StreamedEvalBatches":
        """Batches of the n images at these places of the split, in this order."""
        return StreamedEvalBatches(
            self.split.take(index),
            self.batch_size,
            self.normalisation,
            self.image_size,
            self.workers,
            self.device,
            self.broken,
            self.crop,
        )

    def unbroken(self) -> Int64[Tensor, "N"]:
        """Places in the split of the images that a finished pass has yielded."""
        places = (place for place in range(len(self.split)) if place not in self._left_out)
        return torch.tensor(list(places), dtype=torch.int64)

    def _keys(self) -> list[_Key]:
        places, B = list(range(len(self.split))), self.batch_size
        return [_Key(places[start : start + B]) for start in range(0, len(places), B)]

    def _note(self, broken: list[tuple[int, str]]) -> None:
        super()._note(broken)
        self._left_out.update(place for place, _ in broken)


@dataclass(frozen=True)
class _Augmented:
    """The work of a training's workers."""

    store: Store
    index: np.ndarray
    augmentation: CropAugmentation
    seed: int
    bits: int | None = None

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
        cut = load_crops(read, boxes, self.augmentation.image_size, bits=self.bits)
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
    """The work of an evaluation's workers."""

    store: Store
    index: np.ndarray
    size: int
    bits: int | None = None
    crop: float = EVAL_CROP

    def __call__(self, key: _Key) -> _Loaded:
        places: list[int] = []
        images: list[np.ndarray] = []
        broken: list[tuple[int, str]] = []
        for place in key.places:
            read = functools.partial(self.store.read, int(self.index[place]))
            try:
                (image,) = load_crops(read, self._middle, self.size, EVAL_SPARE, self.bits)
            except BrokenImageError as error:
                broken.append((place, str(error)))
            else:
                places.append(place)
                images.append(np.asarray(image))
        shape = (1, len(images), self.size, self.size, 3)
        return places, np.array(images, np.uint8).reshape(shape), broken

    def _middle(self, width: int, height: int) -> list[Box]:
        return [centre_box(width, height, self.crop)]
