"""Position embeddings of images of another size."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_POSITIONS = {"pos_embed", "pos_embedding", "position_embedding", "position_embeddings"}
_BIASES = {"relative_position_bias_table"}
_MOST_PREFIX_TOKENS = 8


def resampled(
    name: str, x: Tensor, like: Tensor, reduction: int, image_size: tuple[int, int] | None
) -> Tensor:
    """Position embeddings of another size of images, in the size of the network's.

    Args:
        name: their name; a tensor of another name is returned as it is.
        x: those of the file: (1, tokens + places, D), or a table of biases (places, heads).
        like: those of the network.
        reduction: side of the image / side of the map.
        image_size: height and width of the images in pixels. Default: square images.
    """
    last = name.rpartition(".")[2]
    if x.shape == like.shape or not x.is_floating_point():
        return x
    if last in _BIASES and x.ndim == like.ndim == 2:
        grid, old = _square(len(like)), _square(len(x))
        return _on_grid(x[None], 0, old, grid)[0] if grid and old else x
    if last in _POSITIONS and x.ndim == like.ndim == 3:
        for tokens in range(_MOST_PREFIX_TOKENS + 1):
            grid = _grid(like.shape[1] - tokens, reduction, image_size)
            old = _square(x.shape[1] - tokens)
            if grid and old:
                return _on_grid(x, tokens, old, grid)
    return x


def _grid(
    places: int, reduction: int, image_size: tuple[int, int] | None
) -> tuple[int, int] | None:
    """The height and the width of a map of so many places."""
    if image_size is None:
        return _square(places)
    height, width = (side // reduction for side in image_size)
    return (height, width) if height * width == places else None


def _on_grid(x: Tensor, tokens: int, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Embeddings (1, tokens + places, D) on another grid, by bicubic interpolation as in timm."""
    maps = x[:, tokens:].float().unflatten(1, old).permute(0, 3, 1, 2)
    maps = F.interpolate(maps, size=new, mode="bicubic", antialias=True)
    return torch.cat([x[:, :tokens], maps.flatten(2).transpose(1, 2).to(x.dtype)], dim=1)


def _square(n: int) -> tuple[int, int] | None:
    side = math.isqrt(max(n, 0))
    return (side, side) if side * side == n > 0 else None
