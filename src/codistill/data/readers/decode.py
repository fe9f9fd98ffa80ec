"""Decodes images of one size, several at a time."""

import functools
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from codistill.data.encoded import EncodedSplit
from codistill.errors import InputError

# Named one by one, because Pillow knows more: for EPS it runs Ghostscript.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "GIF", "PPM", "TIFF", "AVIF")
SUFFIXES = frozenset(
    (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jif", ".jfif", ".webp", ".bmp", ".dib", ".gif")
    + (".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff", ".avif")
)

CHUNK = 256  # images that a thread takes at once, because handing over one costs more


@functools.cache
def formats() -> tuple[str, ...]:
    """The formats that images are read in: those of ours that this Pillow has."""
    from PIL import Image

    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def decode_images(
    images: EncodedSplit, size: int, of: str, root: Path
) -> UInt8[Tensor, "n size size 3"]:
    """RGB pixels of images that must all be of one size.

    Args:
        images: n encoded images.
        size: height and width of each, in pixels.
        of: name of the data set, for messages.
        root: folder that the images' names are relative to, for messages.

    Raises:
        InputError: an image cannot be decoded, or has another size.
    """
    pixels = np.empty((len(images), size, size, 3), np.uint8)

    def decode_chunk(start: int) -> None:
        for i in range(start, min(start + CHUNK, len(images))):
            pixels[i] = _decode(images, i, size, of, root)

    pool = ThreadPoolExecutor()  # Pillow decodes without Python's lock
    try:
        for _ in pool.map(decode_chunk, range(0, len(images), CHUNK)):
            pass
    finally:
        pool.shutdown(cancel_futures=True)  # after the first bad image the rest is not wanted
    return torch.from_numpy(pixels)


def _decode(
    images: EncodedSplit, i: int, size: int, of: str, root: Path
) -> UInt8[np.ndarray, "size size 3"]:
    from PIL import Image

    where = f"{root / images.name(i)}"
    try:
        with Image.open(io.BytesIO(images.read(i)), formats=formats()) as image:
            if image.size != (size, size):  # known before decoding: a huge image costs nothing
                width, height = image.size
                raise InputError(f"{where} is {width} x {height} pixels: {of} has {size} x {size}")
            return np.asarray(image.convert("RGB"))
    except InputError:
        raise
    except Exception as error:  # a damaged image can raise nearly anything
        raise InputError(f"{where} is not a readable image: replace or remove it") from error
