"""Mixup, CutMix, label smoothing and class weights, which turn labels into distributions.

They run on the device between the batches and the method, so that every method has them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from codistill import distributed
from codistill.data.batch import Batch
from codistill.errors import InputError, require_fraction, require_not_negative


@dataclass(frozen=True)
class Mixing:
    """Strengths of what is mixed.

    Attributes:
        label_smoothing: share of every label that is spread over all classes, 0 to 1. Szegedy et
            al., arXiv:1512.00567.
        mixup: alpha of the Beta distribution of the share that an image keeps when it is blended
            with the one before it in the batch; 0 is off. Zhang et al., arXiv:1710.09412.
        cutmix: the same for a rectangle of the other image; 0 is off. If Mixup is on too, each
            batch takes one of them at random. Yun et al., arXiv:1905.04899.
        class_weights: (C,), weights of the classes; a batch's loss is the weighted mean. None:
            all are equal.
    """

    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    class_weights: Float[Tensor, "C"] | None = None

    def __post_init__(self) -> None:
        require_fraction(label_smoothing=self.label_smoothing)
        require_not_negative(mixup=self.mixup, cutmix=self.cutmix)

    def __bool__(self) -> bool:
        """Whether anything is on."""
        numbers = self.label_smoothing, self.mixup, self.cutmix
        return any(numbers) or self.class_weights is not None


class MixedBatches:
    """Batches whose labels are distributions.

    The random numbers depend on (seed, epoch, step) alone. Of several processes each mixes its
    piece of every batch, whose images are mixed with those before them in the whole batch.

    Args:
        batches: training batches, with `start_at`.
        num_classes: C.
        mixing: strengths of what is mixed.
        seed: seed of the blending.
    """

    def __init__(self, batches: Any, num_classes: int, mixing: Mixing, seed: int = 0):
        weights = mixing.class_weights
        if weights is not None and len(weights) != num_classes:
            raise InputError(f"there are {len(weights)} class weights for {num_classes} classes")
        self.batches = batches
        self.num_classes = num_classes
        self.mixing = mixing
        self.seed = seed
        self._neighbour = False
        self.start_at(0)

    def __len__(self) -> int:
        return len(self.batches)

    def start_at(self, epoch: int, step: int = 0) -> None:
        """Sets the epoch of the next pass, and the step at which the pass begins."""
        self._epoch, self._start = epoch, step
        self.batches.start_at(epoch, step)

    def __iter__(self) -> Iterator[Batch]:
        weights = self.mixing.class_weights
        if distributed.team().size > 1:
            self._ask_for_neighbours()
        for step, batch in enumerate(self.batches, self._start):
            views, labels = batch
            y = smooth(labels, self.num_classes, self.mixing.label_smoothing)
            views, y = self._blend(views, y, np.random.default_rng([self.seed, self._epoch, step]))
            if weights is not None:
                if step == self._start:
                    weights = weights.to(y)  # once, because a copy waits for the device
                y = weigh(y, weights)
            yield batch.with_tensors(views, y)

    def _blend(
        self, views: Any, y: Float[Tensor, "B C"], rng: np.random.Generator
    ) -> tuple[Any, Float[Tensor, "_ C"]]:
        alphas = {"mixup": self.mixing.mixup, "cutmix": self.mixing.cutmix}
        kinds = [kind for kind, alpha in alphas.items() if alpha]
        if not kinds:
            return views, y
        kind = kinds[rng.integers(len(kinds))]
        keep = rng.beta(alphas[kind], alphas[kind])
        if kind == "mixup":
            views = [self._own(x).lerp(self._before(x), 1 - keep) for x in views]
        else:
            height, width = views[0].shape[2:]
            top, bottom, left, right = cut_box(height, width, keep, rng)
            boxes = [self._before(x[:, :, top:bottom, left:right]) for x in views]
            views = [self._own(x).clone() for x in views]
            for x, box in zip(views, boxes, strict=True):
                x[:, :, top:bottom, left:right] = box
            keep = 1 - (bottom - top) * (right - left) / (height * width)
        return views, self._own(y).lerp(self._before(y), 1 - keep)

    def _ask_for_neighbours(self) -> None:
        blends = bool(self.mixing.mixup or self.mixing.cutmix)
        if blends and not hasattr(self.batches, "neighbour"):
            raise InputError(
                "Mixup and CutMix in several processes need codistill's batches, which know the "
                f"image before a piece, not {type(self.batches).__name__}"
            )
        self._neighbour = self.batches.neighbour = blends

    def _own(self, x: Tensor) -> Tensor:
        """Images or labels without the one that only lies before the first."""
        return x[1:] if self._neighbour else x

    def _before(self, x: Tensor) -> Tensor:
        """For each image or label the one before it in the batch; before the first is the last."""
        return x[:-1] if self._neighbour else x.roll(1, dims=0)


def smooth(labels: Int64[Tensor, "B"], num_classes: int, share: float) -> Float[Tensor, "B C"]:
    """One-hot rows, with `share` of each spread evenly over all classes."""
    one_hot = torch.zeros(len(labels), num_classes, device=labels.device)
    one_hot.scatter_(1, labels[:, None], 1.0)
    return (1 - share) * one_hot + share / num_classes


def weigh(y: Float[Tensor, "B C"], weights: Float[Tensor, "C"]) -> Float[Tensor, "B C"]:
    """Rows times the classes' weights, scaled so that the batch of all processes keeps its sum."""
    weighed = y * weights
    total = weighed.sum()
    rows: int | Tensor = len(y)
    if distributed.team().size > 1:
        rows = total.new_full((), len(y))
        distributed.add_up([rows, total])
    return weighed * (rows / total.clamp(min=1e-12))


def cut_box(
    height: int, width: int, keep: float, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of a box of the share 1 - `keep` of the image, at a random centre.

    The part of the box beyond the edge is lost, as in the paper.
    """
    side = (1 - keep) ** 0.5
    row, column = int(rng.integers(height)), int(rng.integers(width))
    half_height, half_width = int(height * side) // 2, int(width * side) // 2
    return (
        max(0, row - half_height),
        min(height, row + half_height),
        max(0, column - half_width),
        min(width, column + half_width),
    )


def balanced_weights(labels: Int64[Tensor, "N"], num_classes: int) -> Float[Tensor, "C"]:
    """N / (C n_c), so that all classes count the same; 0 for a class without images."""
    counts = torch.bincount(labels, minlength=num_classes).float()
    weights = len(labels) / (num_classes * counts)
    return torch.where(counts > 0, weights, 0.0)
