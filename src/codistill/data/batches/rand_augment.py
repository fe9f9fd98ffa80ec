"""torchvision's RandAugment, drawn from a seed and nothing else.

A batch in memory is changed by few operations and without a wait for the device: all is drawn on
the CPU, one gather moves the pixels of every image that is sheared, shifted or turned, and images
that share another operation go through it together. The pixels are those of torchvision, image by
image.
"""

import functools
from collections.abc import Sequence
from itertools import groupby
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from codistill.importing import optional

_OPERATIONS = 2  # for each image
_MOVING = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
RAND_AUGMENT = "data.rand_augment"  # the setting that needs torchvision

Image = TypeVar("Image")
Drawn = tuple[str, float]
"""The name of an operation, and its magnitude with a sign."""


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
    images: UInt8[Tensor, "B H W 3"],
    strength: int,
    seed: int,
    of: int | None = None,
    places: slice | list[int] = slice(None),
) -> UInt8[Tensor, "B H W 3"]:
    """Applies to each image two operations of its own, all drawn from `seed`.

    Args:
        images: the images.
        strength: 1 to 30.
        seed: draws the operations and their directions.
        of: number of images to draw for, the whole batch. Default: B.
        places: the places of the images in it.
    """
    size = images.shape[1], images.shape[2]
    rng = torch.Generator().manual_seed(seed)
    drawn = [_draw(strength, size, rng) for _ in range(len(images) if of is None else of)]
    drawn = drawn[places] if isinstance(places, slice) else [drawn[b] for b in places]
    for of_each in zip(*drawn, strict=True):
        images = _apply(images, of_each, strength)
    return images


def _draw(strength: int, size: tuple[int, int], rng: torch.Generator) -> list[Drawn]:
    """The operations of an image, from the random numbers that torchvision would take."""
    table, drawn = _table(strength, size), []
    for _ in range(_OPERATIONS):
        name, magnitude, signed = table[int(torch.randint(len(table), (), generator=rng))]
        if signed and torch.rand((), generator=rng) <= 0.5:
            magnitude = -magnitude
        drawn.append((name, magnitude))
    return drawn


@functools.cache
def _table(strength: int, size: tuple[int, int]) -> list[tuple[str, float, bool]]:
    """Name and magnitude of each operation, and whether it has a sign."""
    transform = _transform(strength)
    magnitudes = {
        name: (of_bins(transform.num_magnitude_bins, *size), signed)
        for name, (of_bins, signed) in transform._AUGMENTATION_SPACE.items()
    }
    return [
        (name, 0.0 if values is None else float(values[strength]), signed and values is not None)
        for name, (values, signed) in magnitudes.items()
    ]


def _apply(
    images: UInt8[Tensor, "B H W 3"], drawn: Sequence[Drawn], strength: int
) -> UInt8[Tensor, "B H W 3"]:
    """Applies to each image the operation that was drawn for it."""
    B, height, width, _ = images.shape
    moves = _moves(strength, (height, width))
    order = sorted(range(B), key=lambda b: drawn[b])  # images of one operation stand together
    rows = [moves.get(drawn[b], 0) for b in order]
    back = sorted(range(B), key=order.__getitem__)  # where each image stands
    packed = torch.tensor([order, rows, back]).to(images.device, non_blocking=True)
    place, row, stands = packed

    source = _sources(strength, (height, width), images.device)[row]  # (B, H W)
    pixels = source.clamp(min=0) + height * width * place[:, None]
    moved = images.reshape(-1, 3).index_select(0, pixels.flatten())
    moved *= (source >= 0).byte().view(-1, 1)
    moved = moved.view(images.shape)

    begin = 0
    for (name, magnitude), same in groupby(drawn[b] for b in order):
        end = begin + len(list(same))
        if name not in _MOVING and name != "Identity":
            part = moved[begin:end].permute(0, 3, 1, 2)
            moved[begin:end] = _changed(part, name, magnitude, strength).permute(0, 2, 3, 1)
        begin = end
    return moved.index_select(0, stands)


def _changed(
    images: UInt8[Tensor, "b 3 H W"], name: str, magnitude: float, strength: int
) -> UInt8[Tensor, "b 3 H W"]:
    if name == "Sharpness":
        return _sharpened(images, 1 + magnitude)
    if name == "AutoContrast":
        return _spread(images)
    if name == "Equalize":
        return _equalised(images)
    transform = _transform(strength)
    return transform._apply_image_or_video_transform(
        images, name, magnitude, interpolation=transform.interpolation, fill=transform._fill
    )


def _sharpened(images: UInt8[Tensor, "b 3 H W"], factor: float) -> UInt8[Tensor, "b 3 H W"]:
    """Torchvision's `adjust_sharpness`, which copies a kernel to the device and waits.

    A blurred pixel is (4 itself + its 3x3 surroundings) / 13, rounded. Sums of whole numbers are
    exact, so it is that of torchvision's convolution, whose errors are too small to matter.
    """
    if min(images.shape[2:]) <= 2:
        return images
    x = images.float()
    inside = x[:, :, 1:-1, 1:-1]
    rows = x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:]
    around = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    blurred = (around.add_(inside, alpha=4) / 13).round_()
    inside.add_(blurred.sub_(inside), alpha=1 - factor)
    return x.clamp_(0, 255).byte()


def _spread(images: UInt8[Tensor, "b 3 H W"]) -> UInt8[Tensor, "b 3 H W"]:
    """The `autocontrast` of torchvision, without indexing by masks, which may wait."""
    x = images.float()
    low, high = x.amin(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
    flat = low == high
    scale = torch.where(flat, 1.0, (high - low) * (1.0 / 255))
    return ((x - torch.where(flat, 0.0, low)) / scale).clamp_(0, 255).byte()


def _equalised(images: UInt8[Tensor, "b 3 H W"]) -> UInt8[Tensor, "b 3 H W"]:
    """The `equalize` of torchvision, whose histogram a GPU in deterministic mode waits for.

    How many pixels are at most as bright as each value is looked up in the sorted pixels.
    """
    pixels = images.flatten(2)  # (b, 3, HW)
    ordered = pixels.sort(dim=2).values.contiguous()
    values = torch.arange(255, dtype=torch.uint8, device=images.device)
    counts = torch.searchsorted(
        ordered, values.expand(*pixels.shape[:2], -1).contiguous(), right=True
    )
    darker = torch.searchsorted(ordered, ordered[..., -1:].contiguous())  # than the brightest value
    step = darker.div(255, rounding_mode="floor")
    table = (
        (counts + step // 2).div_(step.clamp(min=1), rounding_mode="floor").clamp_(0, 255).byte()
    )
    table = torch.cat([torch.zeros_like(table[..., :1]), table], dim=2)  # (b, 3, 256)
    equalised = table.gather(2, pixels.long())
    return torch.where(step > 0, equalised, pixels).view(images.shape)


@functools.cache
def _moves(strength: int, size: tuple[int, int]) -> dict[Drawn, int]:
    """The row in `_sources` of each operation that moves pixels; row 0 moves none."""
    signed = [
        (name, sign * magnitude)
        for name, magnitude, _ in _table(strength, size)
        if name in _MOVING
        for sign in (1, -1)
    ]
    return {drawn: row for row, drawn in enumerate(signed, 1)}


@functools.lru_cache(maxsize=16)
def _sources(strength: int, size: tuple[int, int], device: torch.device) -> Int64[Tensor, "M HW"]:
    """For each row of `_moves` and each pixel, the pixel that it shows; -1: it is black.

    torchvision moves the number of every pixel, and so says it itself.
    """
    height, width = size
    numbers = torch.arange(1.0, height * width + 1).view(1, height, width)
    transform = _transform(strength)

    def moved(name: str, magnitude: float) -> Float[Tensor, "1 H W"]:
        return transform._apply_image_or_video_transform(
            numbers, name, magnitude, interpolation=transform.interpolation, fill=transform._fill
        )

    with torch.inference_mode(False):
        rows = [numbers, *(moved(*drawn) for drawn in _moves(strength, size))]
        return (torch.stack(rows).flatten(1).long() - 1).to(device)


@functools.cache
def _transform(strength: int) -> Any:
    v2 = optional("torchvision.transforms.v2", RAND_AUGMENT)
    return v2.RandAugment(_OPERATIONS, strength)
