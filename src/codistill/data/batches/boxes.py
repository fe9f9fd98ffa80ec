"""Which part of an image a crop is."""

import math
import random

Box = tuple[int | float, int | float, int | float, int | float]
"""Left, top, right and bottom in pixels of the whole image, turned as EXIF says."""

EVAL_CROP = 0.875  # share of the short side, as 224 of 256


def random_box(width: int, height: int, min_scale: float, rng: random.Random) -> Box:
    """A crop of random area and aspect, as torchvision's `RandomResizedCrop` draws it.

    Args:
        width: width of the image, in pixels.
        height: height of the image, in pixels.
        min_scale: smallest share of its area; the largest is 1. Aspects are 3/4 to 4/3.
        rng: draws the crop.
    """
    for _ in range(10):
        area = width * height * rng.uniform(min_scale, 1)
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.randint(0, width - w), rng.randint(0, height - h)
            return left, top, left + w, top + h
    return centre_box(width, height, 1.0, (3 / 4, 4 / 3))  # for a very long image


def centre_box(
    width: int, height: int, share: float, aspects: tuple[float, float] = (1.0, 1.0)
) -> Box:
    """The crop in the middle: a share of the largest one whose aspect lies in this range.

    Resizing the short side to S / share and then cutting out S x S gives the same crop, but makes a
    very large image of a very long one.
    """
    aspect = min(max(width / height, aspects[0]), aspects[1])
    w, h = min(width, height * aspect) * share, min(height, width / aspect) * share
    return (width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2
