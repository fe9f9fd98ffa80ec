"""What all batches of a split share: their order, their number, and the seeds of what is drawn."""

from typing import Generic

import torch
from jaxtyping import Int64
from torch import Tensor

from codistill import distributed
from codistill.data.dataset import S
from codistill.data.normalisation import Normalisation
from codistill.errors import InputError
from codistill.messages import counted


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

    A last batch of one image is left out, because batch normalisation cannot learn from it. Of
    several processes each yields its piece of every batch, with its share; see `distributed.piece`.

    Args:
        split: N labelled images.
        batch_size: B.
        normalisation: applied to the images last.
        views: V, number of differently augmented versions of each image.
        seed: with the epoch and the step it determines every batch.
        class_group: number of images of one class that come together, a divisor of B; 0 is off.

    Attributes:
        most_steps: number of steps of an epoch at most, its first ones; None: all.
        neighbour: whether a piece begins with the image before it in the batch, which belongs to
            another piece, or is the batch's last one.
    """

    most_steps: int | None = None
    neighbour = False

    def __init__(
        self,
        split: S,
        batch_size: int,
        normalisation: Normalisation,
        views: int,
        seed: int,
        class_group: int,
    ):
        if len(split) < 2 or batch_size < 2:
            raise InputError(
                f"training needs 2 images or more, and batches of 2 or more, not "
                f"{counted(len(split), 'image')} with batch_size {batch_size}"
            )
        if class_group and batch_size % class_group:
            raise InputError(
                f"data.class_group is {class_group}, which does not divide batch_size {batch_size}"
            )
        super().__init__(split, batch_size, normalisation)
        self.views = views
        self.seed = seed
        self.class_group = class_group
        self.start_at(0)

    def __len__(self) -> int:
        """Steps in a whole epoch."""
        full, rest = divmod(len(self.split), self.batch_size)
        steps = full + (rest > 1)
        return steps if self.most_steps is None else min(steps, self.most_steps)

    def start_at(self, epoch: int, step: int = 0) -> None:
        """Sets the epoch of the next pass, and the step at which the pass begins."""
        self._epoch, self._start = epoch, step

    def _order(self) -> Int64[Tensor, "N"]:
        """The N places in the split, in the order of the epoch."""
        rng = self._rng(0)
        order = torch.randperm(len(self.split), generator=rng)
        if self.class_group < 2:
            return order
        return by_class(order, self.split.labels.cpu(), self.class_group, rng)

    def _piece(self, images: int) -> slice | list[int]:
        """The places of the images that this process yields of a batch of so many."""
        if distributed.team().size == 1:
            return slice(None)
        places = distributed.piece(images, self.class_group)
        return [*([(places[0] - 1) % images] if self.neighbour else []), *places]

    def _rng(self, *purpose: int) -> torch.Generator:
        return torch.Generator().manual_seed(mix(self.seed, self._epoch, *purpose))


def by_class(
    order: Int64[Tensor, "N"], labels: Int64[Tensor, "N"], m: int, rng: torch.Generator
) -> Int64[Tensor, "N"]:
    """An order in which m images of a class come together; each class keeps its own order.

    Where m does not divide the number of a class, the rest of it comes last of all.
    """
    order = order[labels[order].argsort(stable=True)]  # class by class
    counts = torch.bincount(labels)
    first = (counts.cumsum(0) - counts)[labels[order]]  # place of the first image of the class
    place = torch.arange(len(order))
    within = place - first
    draws = torch.rand(len(order), generator=rng, dtype=torch.float64)[place - within % m]
    rest = within >= (counts // m * m)[labels[order]]
    return order[(draws + rest).argsort(stable=True)]


def mix(*numbers: int) -> int:
    """One seed made of several numbers; seeds of neighbouring numbers are unrelated."""
    state = 0
    for number in numbers:  # splitmix64
        state = (state + number + 0x9E3779B97F4A7C15) & (2**64 - 1)
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
        state ^= state >> 31
    return state >> 1  # manual_seed takes 63 bits
