"""Batches of images that live on the device, augmented there in one call.

The whole split is one uint8 tensor on the device. A batch costs a few operations, and the only
copy from the host is that of its random numbers. They are drawn on the CPU, so that every device
sees the same augmentations, and depend on (seed, epoch, step) alone, so that a training can resume
at any step.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from codistill.data.batch import Batch
from codistill.data.batches.order import InOrder, Shuffled, mix
from codistill.data.batches.rand_augment import RAND_AUGMENT, rand_augment_each
from codistill.data.dataset import Split
from codistill.data.normalisation import Normalisation
from codistill.errors import InputError
from codistill.importing import optional

PadMode = Literal["reflect", "zeros"]


@dataclass(frozen=True)
class Augmentation:
    """Pad, crop back to the old size at a random place, mirror every second image, RandAugment.

    Attributes:
        pad: pixels added on each side before the crop; 0 leaves images where they are.
        pad_mode: content of these pixels: mirrored image (FFL's authors) or black (most others).
        flip: whether to mirror images left and right.
        rand_augment: strength of RandAugment's two operations, 1 to 30; 0: without.
    """

    pad: int = 4
    pad_mode: PadMode = "reflect"
    flip: bool = True
    rand_augment: int = 0

    def draw(
        self, n: int, rng: torch.Generator
    ) -> tuple[Int64[Tensor, "n"], Int64[Tensor, "n"], Bool[Tensor, "n"]]:
        """Row and column of the crop in the padded image, and whether to mirror: for n images."""
        top, left = torch.randint(2 * self.pad + 1, (2, n), generator=rng)
        flips = torch.rand(n, generator=rng) < 0.5 if self.flip else torch.zeros(n).bool()
        return top, left, flips


def crop_and_flip(
    images: UInt8[Tensor, "N H W 3"],
    index: Int64[Tensor, "B"],
    top: Int64[Tensor, "B"],
    left: Int64[Tensor, "B"],
    flips: Bool[Tensor, "B"],
    pad: int,
    pad_mode: PadMode,
) -> UInt8[Tensor, "B H W 3"]:
    """Pads image `index[b]`, cuts it at row `top[b]`, column `left[b]`; mirrors it if `flips[b]`.

    Padded images are never made: one gather cuts the images, with the padding written into its
    indices. The result equals that of padding, cropping and mirroring one by one, to the bit.
    """
    height, width = images.shape[1:3]
    rows = top[:, None] + torch.arange(height, device=images.device) - pad  # (B, H)
    columns = torch.arange(width, device=images.device).expand(len(index), -1)
    columns = torch.where(flips[:, None], width - 1 - columns, columns)
    columns = left[:, None] + columns - pad  # (B, W)
    mirrored_rows, mirrored_columns = _reflect(rows, height), _reflect(columns, width)

    flat = index[:, None, None] * height + mirrored_rows[:, :, None]
    flat = flat * width + mirrored_columns[:, None, :]  # (B, H, W)
    cut = images.view(-1, 3).index_select(0, flat.flatten())  # [flat] takes four times as long
    cut = cut.view(*flat.shape, 3)
    if pad_mode == "reflect":
        return cut
    # As uint8 and along rows of pixels, (B, 3 W): pixel by pixel takes three times as long.
    inside = _within(columns, width).byte().repeat_interleave(3, dim=1)
    by_row = cut.view(*rows.shape, 3 * width)
    by_row *= inside[:, None]
    by_row *= _within(rows, height).byte()[:, :, None]
    return cut


def _within(position: Tensor, size: int) -> Tensor:
    return (position >= 0) & (position < size)


def _reflect(position: Tensor, size: int) -> Tensor:
    """Mirrors positions outside 0 to size - 1 back inside, about the edge pixels."""
    position = position.abs()
    return torch.where(position < size, position, 2 * (size - 1) - position)


class TrainBatches(Shuffled[Split]):
    """One pass over a split in random order, augmented; each epoch has an order of its own.

    Args:
        split: N images on the device that trains.
        batch_size: B. The last batch may be smaller; one of a single image is left out.
        normalisation: applied last.
        augmentation: changes each view of an image; None leaves the images as they are.
        views: V, number of differently augmented versions of each image.
        seed: with the epoch and the step it determines every batch.
        class_group: number of images of one class that come together, a divisor of B; 0 is off.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        normalisation: Normalisation,
        augmentation: Augmentation | None = None,
        views: int = 1,
        seed: int = 0,
        class_group: int = 0,
    ):
        super().__init__(split, batch_size, normalisation, views, seed, class_group)
        smallest = min(split.images.shape[1:3])
        if augmentation and augmentation.pad >= smallest:
            raise InputError(
                f"data.pad is {augmentation.pad}, but the images are only {smallest} pixels wide"
            )
        if augmentation and augmentation.rand_augment:
            optional("torchvision", RAND_AUGMENT)
        self.augmentation = augmentation

    def __iter__(self) -> Iterator[Batch]:
        order = self._order().to(self.split.labels.device)
        for step in range(self._start, len(self)):
            index = order[step * self.batch_size : (step + 1) * self.batch_size]
            images, places = len(index), self._piece(len(index))
            index = index[places]
            views = self._views(index, step, images, places)
            yield Batch(views, self.split.labels[index]).piece_of(images)

    def _views(self, index: Tensor, step: int, of: int, places: slice | list[int]) -> list[Tensor]:
        """Views of the images at these places of a batch of so many, for all of which is drawn."""
        images, a, rng = self.split.images, self.augmentation, self._rng(1, step)
        if a is None:
            return [self.normalisation(images[index])] * self.views
        views = []
        for view in range(self.views):
            draws = (drawn[places] for drawn in a.draw(of, rng))
            top, left, flips = (d.to(images.device, non_blocking=True) for d in draws)
            cut = crop_and_flip(images, index, top, left, flips, a.pad, a.pad_mode)
            if a.rand_augment:
                seed = mix(self.seed, self._epoch, 2, step, view)
                cut = rand_augment_each(cut, a.rand_augment, seed, of, places)
            views.append(self.normalisation(cut))
        return views


class EvalBatches(InOrder[Split]):
    """One pass over a split in its own order, not augmented.

    Args:
        split: N images on the device.
        batch_size: B.
        normalisation: that of the training.
    """

    def __iter__(self) -> Iterator[Batch]:
        return self.dealt(0, 1)

    def dealt(self, rank: int, size: int) -> Iterator[Batch]:
        """Every batch of this number, counted from `rank` in steps of `size`."""
        for start in range(0, len(self.split), self.batch_size)[rank::size]:
            part = slice(start, start + self.batch_size)
            images = self.normalisation(self.split.images[part])
            yield Batch([images], self.split.labels[part])

    def take(self, index: Int64[Tensor, "n"]) -> "EvalBatches":
        """Batches of the n images at these places of the split, in this order."""
        return EvalBatches(self.split.take(index), self.batch_size, self.normalisation)

    def unbroken(self) -> Int64[Tensor, "N"]:
        """Places in the split of the images that a pass yields: all of them."""
        return torch.arange(len(self.split))
