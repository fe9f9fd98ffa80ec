"""Turns encoded images into pixels, several at a time."""

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from codistill.errors import InputError
from codistill.importing import optional

# Named one by one because Pillow knows more, among them EPS, for which it runs Ghostscript.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".ppm", ".tif", ".tiff"))

CHUNK = 256  # images that a thread takes at once: one at a time, handing over costs more


def decode_images(
    encoded: Sequence[bytes] | Sequence[Path],
    where: Callable[[int], str],
    size: int = 32,
    of: str = "CIFAR",
) -> UInt8[Tensor, "n size size 3"]:
    """RGB pixels of images that must all be of one size.

    Args:
        encoded: the contents of n image files, or their paths.
        where: names the i-th of them, for messages.
        size: height and width of each, in pixels.
        of: the data set, for messages.
    """
    optional("PIL", "reading encoded images")  # before the threads: missed only once
    pixels = np.empty((len(encoded), size, size, 3), np.uint8)

    def decode_chunk(start: int) -> None:
        for i in range(start, min(start + CHUNK, len(encoded))):
            pixels[i] = _decode(encoded[i], where(i), size, of)

    pool = ThreadPoolExecutor()  # Pillow decodes without Python's lock
    try:
        for _ in pool.map(decode_chunk, range(0, len(encoded), CHUNK)):
            pass
    finally:
        pool.shutdown(cancel_futures=True)  # after the first bad image the rest is not wanted
    return torch.from_numpy(pixels)


def _decode(
    encoded: bytes | Path, where: str, size: int, of: str
) -> UInt8[np.ndarray, "size size 3"]:
    from PIL import Image

    source = io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded
    try:
        with Image.open(source, formats=FORMATS) as image:
            if image.size != (size, size):  # known before decoding: a huge image costs nothing
                width, height = image.size
                raise InputError(f"{where} is {width} x {height} pixels: {of} has {size} x {size}")
            return np.asarray(image.convert("RGB"))
    except InputError:
        raise
    except Exception as error:  # a damaged image can raise nearly anything
        raise InputError(f"{where} is not a readable image: replace or remove it") from error
