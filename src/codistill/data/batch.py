"""Labelled images as a training step takes them."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from codistill.errors import InputError

Labels = Int[Tensor, "B"] | Float[Tensor, "B C"]
"""Indices of classes, or distributions over them, as Mixup and label smoothing make."""


class Batch(NamedTuple):
    """B labelled images, each in one or more augmented views.

    Attributes:
        views: V tensors (B, 3, H, W), normalised.
        labels: (B,), 0 to C - 1; or, to train on, distributions (B, C).
    """

    views: Sequence[Float[Tensor, "B 3 H W"]]
    labels: Labels

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
