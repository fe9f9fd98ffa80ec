"""torchvision's RandAugment, drawn from a seed and nothing else."""

import functools
from typing import Any, TypeVar

import torch
from jaxtyping import UInt8
from torch import Tensor

from codistill.importing import optional

_OPERATIONS = 2  # for each image
RAND_AUGMENT = "data.rand_augment"  # the setting that needs torchvision

Image = TypeVar("Image")


def rand_augment(image: Image, strength: int, seed: int) -> Image:
    """Applies two operations drawn from `seed`. PyTorch's random numbers stay as they were.

    Args:
        image: image of Pillow, or uint8 tensor (3, H, W).
        strength: 1 to 30.
        seed: draws the operations and their directions.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs too
        return _transform(strength)(image)


def rand_augment_each(
    images: UInt8[Tensor, "B H W 3"], strength: int, seed: int
) -> UInt8[Tensor, "B H W 3"]:
    """Applies to each image two operations of its own, all drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        transform = _transform(strength)
        return torch.stack([transform(image.permute(2, 0, 1)).permute(1, 2, 0) for image in images])


@functools.cache
def _transform(strength: int) -> Any:
    v2 = optional("torchvision.transforms.v2", RAND_AUGMENT)
    return v2.RandAugment(_OPERATIONS, strength)
