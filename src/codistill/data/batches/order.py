"""What all batches of a split share: their order, their number, and the seeds of what is drawn."""

from typing import Generic

import torch

from codistill.data.dataset import S
from codistill.data.normalisation import Normalisation
from codistill.errors import InputError


class InOrder(Generic[S]):
    """Base of batches in the split's own order, for evaluation.

    Args:
        split: N labelled images.
        batch_size: B. The last batch may be smaller.
        normalisation: applied to the images last.
    """

    def __init__(self, split: S, batch_size: int, normalisation: Normalisation):
        self.split = split
        self.batch_size = batch_size
        self.normalisation = normalisation

    def __len__(self) -> int:
        """Batches in a pass."""
        return -(-len(self.split) // self.batch_size)

    @property
    def images(self) -> int:
        """Images in the split."""
        return len(self.split)


class Shuffled(InOrder[S]):
    """Base of batches in random order, for training; each epoch has an order of its own.

    A last batch of one image is left out, because batch normalisation cannot learn from it.

    Args:
        split: N labelled images.
        batch_size: B.
        normalisation: applied to the images last.
        views: V, number of differently augmented versions of each image.
        seed: with the epoch and the step it determines every batch.
    """

    def __init__(
        self, split: S, batch_size: int, normalisation: Normalisation, views: int, seed: int
    ):
        if len(split) < 2 or batch_size < 2:
            raise InputError(
                f"training needs 2 images or more, and batches of 2 or more: there are "
                f"{len(split)} images and batch_size is {batch_size}"
            )
        super().__init__(split, batch_size, normalisation)
        self.views = views
        self.seed = seed
        self.start_at(0)

    def __len__(self) -> int:
        """Steps in a whole epoch."""
        full, rest = divmod(len(self.split), self.batch_size)
        return full + (rest > 1)

    def start_at(self, epoch: int, step: int = 0) -> None:
        """Sets the epoch of the next pass, and the step at which the pass begins."""
        self._epoch, self._start = epoch, step

    def _order(self) -> torch.Tensor:
        """The N places in the split, in the order of the epoch."""
        return torch.randperm(len(self.split), generator=self._rng(0))

    def _rng(self, *purpose: int) -> torch.Generator:
        return torch.Generator().manual_seed(mix(self.seed, self._epoch, *purpose))


def mix(*numbers: int) -> int:
    """One seed made of several numbers; seeds of neighbouring numbers are unrelated."""
    state = 0
    for number in numbers:  # splitmix64
        state = (state + number + 0x9E3779B97F4A7C15) & (2**64 - 1)
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
        state ^= state >> 31
    return state >> 1  # manual_seed takes 63 bits
