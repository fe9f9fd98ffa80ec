"""Labelled images as a training step takes them."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from codistill import distributed
from codistill.errors import InputError

Labels = Int[Tensor, "B"] | Float[Tensor, "B C"]
"""Indices of classes, or distributions over them, as Mixup and label smoothing make."""


class Batch(NamedTuple):
    """B labelled images, each in one or more augmented views.

    In one of several processes they are its piece of a larger batch.

    Attributes:
        views: V tensors (B, 3, H, W), normalised.
        labels: (B,), 0 to C - 1; or, to train on, distributions (B, C).
    """

    views: Sequence[Float[Tensor, "B 3 H W"]]
    labels: Labels

    @property
    def images(self) -> int:
        """Number of images of the step, those of other processes among them."""
        return len(self.labels) * distributed.team().size

    @property
    def share(self) -> float:
        """Weight of the losses of this process; those of all processes add up to 1."""
        return 1 / distributed.team().size

    @property
    def repeated(self) -> bool:
        """Whether every process has the same images, which are too few to be divided."""
        return False

    def piece_of(self, images: int) -> "Batch":
        """The same images, as the piece that this process has of a batch of so many.

        If all of them are here, every process has them. A batch of which nothing is said is one of
        W equal pieces.
        """
        piece = _Piece(*self)
        piece.whole = images
        return piece

    def with_tensors(self, views: Sequence[Tensor], labels: Tensor) -> "Batch":
        """Other views and labels, which are as large a piece of a batch."""
        return Batch(views, labels)

    def parts(self, n: int) -> list[tuple["Batch", float]]:
        """The batch in n parts, or fewer, so that none has a single image; each with its share."""
        images = len(self.labels)
        n = min(n, max(1, images // 2))
        if n == 1:
            return [(self, 1.0)]
        views = zip(*(view.tensor_split(n) for view in self.views), strict=True)
        labels = self.labels.tensor_split(n)
        parts = zip(views, labels, strict=True)
        return [(Batch(list(v), of), len(of) / images) for v, of in parts]


class _Piece(Batch):
    whole = 0

    @property
    def images(self) -> int:
        return self.whole

    @property
    def share(self) -> float:
        return 1 / distributed.team().size if self.repeated else len(self.labels) / self.whole

    @property
    def repeated(self) -> bool:
        return len(self.labels) == self.whole and distributed.team().size > 1

    def with_tensors(self, views: Sequence[Tensor], labels: Tensor) -> Batch:
        return Batch(views, labels).piece_of(self.whole)


Batches = Iterable[Any]
"""`Batch`es, or pairs (images or views, labels): what `as_batch` takes."""


def as_batch(batch: Any) -> Batch:
    """Returns a batch as it is, and makes one of a pair (images or list of views, labels)."""
    if isinstance(batch, Batch):
        return batch
    if not (isinstance(batch, list | tuple) and len(batch) == 2):
        raise InputError(
            f"a batch is a {type(batch).__name__}: give codistill.Batch(views, labels), or a pair "
            "of images (B, 3, H, W) and labels (B,)"
        )
    views, labels = batch
    return Batch([views] if isinstance(views, Tensor) else views, labels)
