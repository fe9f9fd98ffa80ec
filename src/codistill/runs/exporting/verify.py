"""What an export loses, measured on real images."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from codistill.data.batch import Batch
from codistill.errors import InputError

IMAGES = 1000
"""Test images that an export is compared on, at most."""
_ROUNDING = 1e-3  # share of the largest logit: float32 in another order leaves 1e-6 to 1e-5


@dataclass(frozen=True)
class Verified:
    """An export compared with its network on the same images.

    Attributes:
        images: N.
        difference: largest difference of a logit.
        largest: largest logit of the network, in absolute value.
        before: top-1 of the network, in %.
        after: top-1 of the export, in %.
    """

    images: int
    difference: float
    largest: float
    before: float
    after: float

    def line(self) -> str:
        return (
            f"largest difference of a logit {self.difference:.2g} (of at most {self.largest:.3g}); "
            f"top-1 {self.before:.2f} % before, {self.after:.2f} % after"
        )


def verify(
    network: nn.Module, exported: nn.Module, batches: Iterable[Batch], exact: bool
) -> Verified:
    """Compares an export with its network.

    Args:
        network: the network, in eval mode.
        exported: what was read back from the export.
        batches: images of the run, on the CPU.
        exact: whether the export has float32 throughout, and no more than rounding may differ.

    Raises:
        InputError: it is exact, and the logits differ; or a logit is not finite.
    """
    n, before, after, difference, largest = 0, 0, 0, 0.0, 0.0
    with torch.no_grad():
        for batch in batches:
            (images, *_), labels = batch.views, batch.labels
            expected, found = network(images), exported(images)
            difference = max(difference, (expected - found).abs().max().item())
            if not found.isfinite().all():
                raise InputError("the export has logits that are not finite: give --precision fp32")
            largest = max(largest, expected.abs().max().item())
            before += int((expected.argmax(dim=1) == labels).sum())
            after += int((found.argmax(dim=1) == labels).sum())
            n += len(labels)
    if not n:
        raise InputError("there is not one image to compare the export on")
    if exact and difference > _ROUNDING * largest:
        raise InputError(
            f"the export does not compute what the network does: its logits differ by up to "
            f"{difference:.2g} (of at most {largest:.3g})"
        )
    return Verified(n, difference, largest, 100 * before / n, 100 * after / n)


def interval(percent: float, n: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy measured on n images, in %: Wilson's."""
    z, p = 1.96, percent / 100
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, 100 * (middle - half)), min(100.0, 100 * (middle + half))
