"""Folders of small photographs, made for a test."""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from codistill.data.by_name import open_dataset
from codistill.data.encoded import EncodedSplit


def picture(seed: int, width: int = 40, height: int = 30) -> Image.Image:
    """Smooth, so that JPEG keeps it, and without symmetry, so that a mirrored one differs."""
    rng = np.random.default_rng(seed)
    corners = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
    return corners.resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def write_classes(folder: Path, counts: dict[str, int], seed: int = 0, **size: int) -> Path:
    """folder/CLASS/000.jpg and so on, no two alike."""
    for kind, count in counts.items():
        inside = folder / kind
        inside.mkdir(parents=True, exist_ok=True)
        for i in range(count):
            seed += 1
            (inside / f"{i:03d}.jpg").write_bytes(encoded(picture(seed, **size), quality=95))
    return folder


def photos(root: Path, count: int = 12, **size: int) -> EncodedSplit:
    """Two classes, undivided."""
    write_classes(root, {"cat": (count + 1) // 2, "dog": count // 2}, **size)
    return open_dataset("folder", root).splits["all"]


def plain(root: Path, values: list[int], size: int = 16) -> EncodedSplit:
    """One class each for even and odd: image i is filled with values[i], and so says which it is.

    In the split, the even places come first.
    """
    for i, value in enumerate(values):
        folder = root / f"class{i % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (size, size), (value,) * 3).save(folder / f"{i:03d}.png")
    return open_dataset("folder", root).splits["all"]


def files(folder: Path) -> list[str]:
    """The names of all files, relative, sorted."""
    return sorted(
        os.path.relpath(os.path.join(top, name), folder)
        for top, _, names in os.walk(folder)
        for name in names
    )
