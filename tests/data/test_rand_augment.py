"""A batch in memory is augmented as torchvision augments its images one by one."""

import pytest
import torch
from dispatched import Dispatched
from torch import Tensor

from codistill.data.batches import rand_augment as ours
from codistill.data.batches.rand_augment import rand_augment_each


def images(size: tuple[int, int], n: int = 32) -> Tensor:
    """Random pixels; one image of one colour, and one with a constant channel."""
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (n, *size, 3), generator=rng, dtype=torch.uint8)
    pixels[0] = 7
    pixels[1, ..., 1] = 200
    return pixels


def one_by_one(images: Tensor, strength: int, seed: int) -> Tensor:
    transform = ours._transform(strength)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.stack([transform(x.permute(2, 0, 1)).permute(1, 2, 0) for x in images])


@pytest.mark.parametrize("size", [(8, 8), (32, 32), (12, 20), (2, 2)])
@pytest.mark.parametrize("strength", [1, 9, 30])
def test_every_image_is_that_of_torchvision(size: tuple[int, int], strength: int) -> None:
    pixels = images(size)
    for seed in range(4):  # 256 operations, of 14 kinds
        found = rand_augment_each(pixels, strength, seed)
        assert torch.equal(found, one_by_one(pixels, strength, seed))


def test_every_operation_is_that_of_torchvision() -> None:
    pixels, transform = images((32, 32), n=8), ours._transform(9)
    drawn = [(n, s * m) for n, m, signed in ours._table(9, (32, 32)) for s in (1, -1)[: 1 + signed]]
    assert len(drawn) == 9 * 2 + 5
    for name, magnitude in drawn:
        found = ours._apply(pixels, [(name, magnitude)] * len(pixels), 9)
        for x, y in zip(pixels, found, strict=True):
            expected = transform._apply_image_or_video_transform(
                x.permute(2, 0, 1), name, magnitude, transform.interpolation, transform._fill
            )
            assert torch.equal(y.permute(2, 0, 1), expected), name


def test_a_batch_asks_for_few_operations_and_waits_for_none() -> None:
    pixels = images((32, 32), n=128)
    rand_augment_each(pixels, 9, 0)
    host = Dispatched()
    with host:
        rng = torch.Generator().manual_seed(1)
        for _ in range(128):
            ours._draw(9, (32, 32), rng)  # on the CPU, wherever the images are
    with Dispatched() as seen:
        rand_augment_each(pixels, 9, 1)
    assert seen.kernels - host.kernels < 450
    assert seen.waits[len(host.waits) :] == ["tensor"] * 2  # made of the draws, on the host
