"""One encoded photograph into the pixels of a crop, whatever kind of file it is.

Pillow decodes, cuts and resizes: its `resize(box=...)` makes no more pixels than the crop has, and
`draft` lets libjpeg decode a large JPEG at a half, a quarter or an eighth of its size where the
crop still has as many pixels as it needs: for all crops of an image, the smallest one decides.
"""

import contextlib
import errno
import io
import math
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from codistill.data.normalisation import Normalisation
from codistill.data.readers.decode import FORMATS
from codistill.errors import InputError, reason
from codistill.importing import optional

if TYPE_CHECKING:
    from PIL.Image import Image

Box = tuple[int | float, int | float, int | float, int | float]
"""Left, top, right and bottom in pixels of the whole image, as it is shown."""

EVAL_CROP = 0.875  # of the short side, as 224 of 256

EVAL_SPARE = 2.0  # what is measured should not depend on how it is decoded: see `load_crops`
_ORIENTATION = 274  # EXIF's tag
_QUARTER_TURNS = 5  # orientations from here on have width and height exchanged
_OF_THE_MACHINE = {  # no image is to blame for these
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
}


class BrokenImageError(ValueError):
    """An image that cannot be had. The message says why."""


def load_crops(
    read: Callable[[], bytes],
    choose: Callable[[int, int], Sequence[Box]],
    size: int,
    spare: float = 1.0,
) -> list["Image"]:
    """Crops of one image, RGB, each resized to size x size; the image is decoded once.

    Args:
        read: gives the contents of the image's file.
        choose: what to cut out, of the image's width and height in pixels.
        size: of the crops, in pixels.
        spare: how many times as wide as the crops what they are cut from has at least to be, where
            a JPEG is decoded at a reduced size. 1 gives what thumbnails are made of; 2 is hardly to
            be told from the full size; infinity decodes that.

    Raises:
        BrokenImageError: where the image cannot be read, decoded, or trusted.
    """
    from PIL.Image import Resampling

    with _opened(read) as image:
        boxes = choose(*shown_size(image))
        with _blamed_on_the_image():
            shrink = _draft(image, boxes, spare * size)
            rgb = _to_rgb(image)
    # The reduced size is rounded up, so that a box which lies inside the whole stays inside.
    scaled = [(a / shrink, b / shrink, c / shrink, d / shrink) for a, b, c, d in boxes]
    return [rgb.resize((size, size), Resampling.BILINEAR, box=box) for box in scaled]


def load_whole(read: Callable[[], bytes]) -> tuple[str, UInt8[np.ndarray, "H W 3"]]:
    """The mode that an image is stored in, such as "RGB" or "L", and all of its pixels in RGB.

    Raises:
        BrokenImageError: as `load_crops`.
    """
    with _opened(read) as image, _blamed_on_the_image():
        return image.mode, np.asarray(_to_rgb(image))


def random_box(width: int, height: int, min_scale: float, rng: random.Random) -> Box:
    """A crop of random area and aspect: that of torchvision's `RandomResizedCrop`.

    Args:
        width: of the image, in pixels.
        height: of the image, in pixels.
        min_scale: the least share of its area; the largest is 1. Aspects are 3/4 to 4/3.
        rng: draws it.
    """
    for _ in range(10):
        area = width * height * rng.uniform(min_scale, 1)
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.randint(0, width - w), rng.randint(0, height - h)
            return left, top, left + w, top + h
    return centre_box(width, height, 1.0, (3 / 4, 4 / 3))  # of a very long image


def centre_box(
    width: int, height: int, share: float, aspects: tuple[float, float] = (1.0, 1.0)
) -> Box:
    """The crop in the middle, that share of the largest which has one of these aspects.

    To resize the short side to S / share and then to cut out S x S is the same, but of a very long
    image it would make a very large one.
    """
    aspect = min(max(width / height, aspects[0]), aspects[1])
    w, h = min(width, height * aspect) * share, min(height, width / aspect) * share
    return (width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2


def shown_size(image: "Image") -> tuple[int, int]:
    """Width and height, turned as EXIF says."""
    width, height = image.size
    return (height, width) if _orientation(image) >= _QUARTER_TURNS else (width, height)


@contextlib.contextmanager
def _opened(read: Callable[[], bytes]) -> Iterator["Image"]:
    """The image, its size known and its pixels not yet decoded."""
    from PIL import Image

    with warnings.catch_warnings():
        # Of damaged EXIF and the like, and of images larger than 89 million pixels: at twice that
        # Pillow raises an error.
        warnings.simplefilter("ignore")
        with _blamed_on_the_image():
            encoded = read()
            if not encoded:
                raise BrokenImageError("the file is empty")
            image = Image.open(io.BytesIO(encoded), formats=FORMATS)
            if image.format == "TIFF":
                image.load()  # newer versions of Pillow turn it then, and take the tag away
        with image:
            yield image


@contextlib.contextmanager
def _blamed_on_the_image() -> Iterator[None]:
    """Whatever goes wrong inside: the image is broken. A damaged one can raise nearly anything."""
    try:
        yield
    except (BrokenImageError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
            raise
        raise BrokenImageError(_why(error)) from error


def _why(error: Exception) -> str:
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "no image, or of a format that is not read"
    if isinstance(error, Image.DecompressionBombError):
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return f"too large: more than {limit:,} pixels"
    return getattr(error, "strerror", None) or reason(error)


def _orientation(image: "Image") -> int:
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF, which Pillow reports in many ways
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _draft(image: "Image", boxes: Sequence[Box], size: float) -> int:
    """Has a JPEG decoded at a reduced size; returns by what its sides are divided."""
    if image.format != "JPEG":
        return 1
    needed = max(size / min(right - left, bottom - top) for left, top, right, bottom in boxes)
    if needed > 0.5:
        return 1
    width, height = image.size
    image.draft("", (math.ceil(width * needed), math.ceil(height * needed)))
    return round(width / image.size[0])


def _to_rgb(image: "Image") -> "Image":
    """The first frame in 8-bit RGB, turned as EXIF says; what is transparent is white."""
    from PIL import Image

    turn = _orientation(image)
    image.load()
    if image.mode == "F":
        raise BrokenImageError("its pixels are floating-point numbers of unknown range")
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.new("RGBA", layer.size, "white")
        image.alpha_composite(layer)
    if image.mode != "RGB":
        image = image.convert("RGB")
    turns = Image.Transpose
    table = {
        2: turns.FLIP_LEFT_RIGHT,
        3: turns.ROTATE_180,
        4: turns.FLIP_TOP_BOTTOM,
        5: turns.TRANSPOSE,
        6: turns.ROTATE_270,
        7: turns.TRANSVERSE,
        8: turns.ROTATE_90,
    }
    return image.transpose(table[turn]) if turn in table else image


def load_image(path: Path | str, about: dict[str, Any]) -> Float[Tensor, "1 3 H W"]:
    """An image as the evaluation of a run shows it to the student: cut, resized, normalised.

    Args:
        path: an image file of any kind and size.
        about: what the student's file says, `load_student(...).about`: "mean", "std",
            "image_size", and "crop", the share of the largest square in the middle that is
            resized to "image_size".

    Raises:
        InputError: the image cannot be read, or `about` is not that of a run.
    """
    missing = {"mean", "std", "image_size"} - about.keys()
    height, width = about.get("image_size", (0, 0))
    if missing or height != width:
        raise InputError(f"`about` lacks {sorted(missing) or 'a square image_size'}")

    def middle(width: int, height: int) -> list[Box]:
        return [centre_box(width, height, about.get("crop", 1.0))]

    optional("PIL", "reading encoded images")
    try:
        (image,) = load_crops(Path(path).read_bytes, middle, height, EVAL_SPARE)
    except BrokenImageError as error:
        raise InputError(f"{path}: {error}") from error
    normalisation = Normalisation(tuple(about["mean"]), tuple(about["std"]))
    return normalisation(torch.from_numpy(np.array(image))[None])
