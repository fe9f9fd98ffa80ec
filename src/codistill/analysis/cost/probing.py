"""A copy of a method, and random images to run it on."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from codistill.methods.method import Method
from codistill.training.device import device_of, random_numbers_kept


@contextmanager
def probing(method: Method) -> Iterator[Method]:
    """A copy of `method` in train mode with gradients. Random numbers are restored at the end."""
    # inference_mode(False) ends a caller's no_grad too
    with random_numbers_kept(device_of(method)), torch.inference_mode(False):
        probe = copy.deepcopy(method).train()
        probe.peers.recompute = False
        yield probe


def random_views(method: Method, image_size: tuple[int, int], images: int) -> list[Tensor]:
    """A list of random views (B, 3, H, W), as many as `method` trains on."""
    device = device_of(method)
    return [random_images(images, image_size, device) for _ in range(method.views)]


def some_labels(method: Method, images: int) -> Tensor:
    """Labels (B,), of different classes as far as there are."""
    return torch.arange(images, device=device_of(method)) % method.peers.num_classes


def random_images(images: int, image_size: tuple[int, int], device: torch.device) -> Tensor:
    """Random images (B, 3, H, W) in the memory layout of `TrainBatches`."""
    x = torch.randn(images, 3, *image_size)
    return x.to(device, memory_format=torch.channels_last)
