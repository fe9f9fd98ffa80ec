"""Crops of one encoded image of any kind of file.

Pillow decodes, cuts and resizes. Its `resize(box=...)` makes no more pixels than the crop has, and
its `draft` decodes a large JPEG at a half, a quarter or an eighth of its size if the smallest crop
still has enough pixels.
"""

import contextlib
import errno
import io
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from codistill.data.batches.boxes import Box, centre_box
from codistill.data.normalisation import Normalisation
from codistill.data.readers.decode import formats
from codistill.errors import InputError, reason

if TYPE_CHECKING:
    from PIL.Image import Image

EVAL_SPARE = 2.0  # so that decoding hardly changes what is measured: see `load_crops`
_QUALITY = 90  # of JPEGs that are made
_LONGEST = 65_500  # pixels: the longest side that a JPEG can have
_ORIENTATION = 274  # EXIF's tag
_BITS_PER_SAMPLE = 258  # TIFF's tag
_QUARTER_TURNS = 5  # orientations from 5 on exchange width and height
_OF_THE_MACHINE = {  # errors that no image is to blame for
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
}


class BrokenImageError(ValueError):
    """An image that cannot be read or decoded. The message says why."""


def load_crops(
    read: Callable[[], bytes],
    choose: Callable[[int, int], Sequence[Box]],
    size: int,
    spare: float = 1.0,
    bits: int | None = None,
) -> list["Image"]:
    """Crops of one image, RGB, each resized to size x size; the image is decoded once.

    Args:
        read: returns the bytes of the image's file.
        choose: returns the boxes to cut out, given the image's width and height in pixels.
        size: height and width of the crops, in pixels.
        spare: smallest ratio of a decoded box's width to that of its crop, if a JPEG is decoded
            at a reduced size. 1 gives the quality of thumbnails, 2 nearly that of the full
            size, and infinity decodes the full size.
        bits: bits of a pixel that 16-bit images use; None: all.

    Raises:
        BrokenImageError: the image cannot be read or decoded, or is too large.
    """
    from PIL.Image import Resampling

    with opened(read) as image:
        boxes = choose(*shown_size(image))
        with _blamed_on_the_image():
            shrink = _draft(image, boxes, spare * size)
            rgb = _to_rgb(image, bits)
    # The reduced size is rounded up, so that a box inside the whole image stays inside.
    scaled = [(a / shrink, b / shrink, c / shrink, d / shrink) for a, b, c, d in boxes]
    return [rgb.resize((size, size), Resampling.BILINEAR, box=box) for box in scaled]


def reencoded(content: bytes, side: int, bits: int | None = None) -> bytes:
    """An image with a smaller short side, as JPEG; the bytes as they are if it is no larger.

    Args:
        content: bytes of the image's file.
        side: short side of the result, in pixels.
        bits: bits of a pixel that 16-bit images use; None: all.

    Raises:
        BrokenImageError: the image cannot be decoded, or is too large.
    """
    from PIL.Image import Resampling

    with opened(lambda: content) as image:
        width, height = shown_size(image)
        scale = side / min(width, height)
        if scale >= 1 or scale * max(width, height) > _LONGEST:
            return content
        with _blamed_on_the_image():
            _draft(image, [(0, 0, width, height)], EVAL_SPARE * side)
            rgb = _to_rgb(image, bits)
    small = rgb.resize((round(scale * width), round(scale * height)), Resampling.BILINEAR)
    small.info.clear()  # comments and the like
    file = io.BytesIO()
    small.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


class Whole(NamedTuple):
    """A stored image and its pixels.

    Attributes:
        mode: mode of the stored image, such as "RGB" or "L".
        pixels: (H, W, 3), RGB.
        deep: largest value of a pixel of a 16-bit image; None for others, and where it is unknown.
        frames: whether the image has more than one frame, of which the first is used.
    """

    mode: str
    pixels: UInt8[np.ndarray, "H W 3"]
    deep: int | None
    frames: bool


def load_whole(read: Callable[[], bytes], bits: int | None = None) -> Whole:
    """An image and all of its pixels.

    Args:
        read: returns the bytes of the image's file.
        bits: bits of a pixel that 16-bit images use; None: all.

    Raises:
        BrokenImageError: the image cannot be read or decoded, or is too large.
    """
    with opened(read) as image, _blamed_on_the_image():
        frames = image.format != "MPO" and getattr(image, "is_animated", False)
        wide = has_16_bits(image)
        mode = image.mode
        image.load()
        deep = int(np.asarray(image).max()) if wide and mode[0] == "I" else None
        pixels = np.asarray(_to_rgb(image, bits))
        if wide and deep is None:
            deep = int(pixels.max()) << 8  # Pillow keeps the upper half of each pixel
        return Whole(mode, pixels, deep, frames)


def has_16_bits(image: "Image") -> bool:
    """Whether a pixel of the stored image has 16 bits."""
    if image.mode[0] == "I":
        return True
    if image.format == "TIFF":  # decoded by now
        stored = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, 8)
        return max(stored if isinstance(stored, tuple) else (stored,)) == 16
    tiles = getattr(image, "tile", None) or []
    raw = tiles[0][3] if tiles else ""
    raw = raw[0] if isinstance(raw, tuple) and raw else raw
    return isinstance(raw, str) and ";16" in raw


def shown_size(image: "Image") -> tuple[int, int]:
    """Width and height of an image, turned as EXIF says."""
    width, height = image.size
    return (height, width) if _orientation(image) >= _QUARTER_TURNS else (width, height)


@contextlib.contextmanager
def opened(read: Callable[[], bytes]) -> Iterator["Image"]:
    """The image, its size known and its pixels not yet decoded."""
    from PIL import Image

    with warnings.catch_warnings():
        # Pillow warns of damaged EXIF and the like, and of images larger than 89 million pixels.
        # At twice that it raises an error.
        warnings.simplefilter("ignore")
        with _blamed_on_the_image():
            encoded = read()
            if not encoded:
                raise BrokenImageError("the file is empty")
            image = Image.open(io.BytesIO(encoded), formats=formats())
            if image.format == "TIFF":
                image.load()  # newer versions of Pillow turn it here, and remove the tag
        with image:
            yield image


@contextlib.contextmanager
def _blamed_on_the_image() -> Iterator[None]:
    """Blames the image for any error inside: a damaged image can raise nearly anything."""
    try:
        yield
    except (BrokenImageError, InputError, MemoryError):
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
    except Exception:  # Pillow reports damaged EXIF in many ways
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _draft(image: "Image", boxes: Sequence[Box], size: float) -> int:
    """Makes Pillow decode a JPEG at a reduced size, and returns the factor of the reduction."""
    if image.format != "JPEG":
        return 1
    needed = max(size / min(right - left, bottom - top) for left, top, right, bottom in boxes)
    if needed > 0.5:
        return 1
    width, height = image.size
    image.draft("", (math.ceil(width * needed), math.ceil(height * needed)))
    return round(width / image.size[0])


def _to_rgb(image: "Image", bits: int | None = None) -> "Image":
    """The first frame in 8-bit RGB, turned as EXIF says. Transparent pixels become white."""
    from PIL import Image

    turn = _orientation(image)
    bits = bits or 16
    if bits < 16 and image.mode[0] != "I" and has_16_bits(image):
        raise BrokenImageError("16-bit colour is read with all its bits: convert it to 8 bits")
    image.load()
    if image.mode == "F":
        raise BrokenImageError("its pixels are floating-point numbers of unknown range")
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip at 255
        values = np.asarray(image).astype(np.int64)
        if values.size and not 0 <= values.min() <= values.max() <= 65535:
            raise BrokenImageError(
                f"its pixels go from {values.min():,} to {values.max():,}, and 16 bits have 0 to "
                "65,535"
            )
        image = Image.fromarray((values >> (bits - 8)).clip(0, 255).astype(np.uint8))
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


def load_image(image: Path | str | bytes, about: dict[str, Any]) -> Float[Tensor, "1 3 H W"]:
    """An image cut, resized and normalised as in the evaluation of a run.

    Args:
        image: an image file of any kind and size: its path, or its bytes.
        about: what the student's file says, `load_student(...).about`: "mean", "std",
            "image_size", and "crop", the share of the largest square in the middle that is
            resized to "image_size"; "bits", which 16-bit images use.

    Raises:
        InputError: the image cannot be read, or `about` is not that of a run.
    """
    side = side_of(about)

    def middle(width: int, height: int) -> list[Box]:
        return [centre_box(width, height, about.get("crop", 1.0))]

    read = (lambda: image) if isinstance(image, bytes) else Path(image).read_bytes
    try:
        (crop,) = load_crops(read, middle, side, EVAL_SPARE, about.get("bits"))
    except BrokenImageError as error:
        name = "the image" if isinstance(image, bytes) else image
        raise InputError(f"{name}: {error}") from error
    normalisation = Normalisation(tuple(about["mean"]), tuple(about["std"]))
    return normalisation(torch.from_numpy(np.array(crop))[None])


def side_of(about: dict[str, Any]) -> int:
    """Height and width, in pixels, of the images that a student sees; see `load_image`.

    Raises:
        InputError: `about` does not say how images are cut and normalised.
    """
    missing = {"mean", "std", "image_size"} - about.keys()
    height, width = about.get("image_size", (0, 0))
    if missing or height != width:
        raise InputError(f"`about` lacks {sorted(missing) or 'a square image_size'}")
    return int(height)
