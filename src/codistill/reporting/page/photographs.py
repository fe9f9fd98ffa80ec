"""Photographs as data: URIs, with the places that a classifier looks at glowing over them."""

import base64
import io
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from codistill.importing import optional

SIDE = 160
"""Pixels of a photograph on the page."""


def photograph(image: UInt8[np.ndarray, "H W 3"], heat: Float[np.ndarray, "H W"] | None) -> str:
    """A picture for the page, of `SIDE` x `SIDE` pixels.

    Args:
        image: RGB, 0 to 255.
        heat: importance of each place, 0 to 1; the picture under it is grey.
    """
    from PIL import Image as pil

    picture = pil.fromarray(image).resize((SIDE, SIDE), pil.Resampling.BICUBIC)
    if heat is not None:
        picture = _glowing(pil, picture, heat)
    file = io.BytesIO()
    picture.save(file, format="WEBP", quality=72)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def _glowing(pil: Any, picture: Any, heat: Float[np.ndarray, "H W"]) -> Any:
    """The picture in grey under its heat."""
    colours = optional("matplotlib", "drawing curves").colormaps["inferno"]
    small = pil.fromarray(np.round(255 * heat).astype(np.uint8))
    share = np.asarray(small.resize((SIDE, SIDE), pil.Resampling.BICUBIC)) / 255
    grey = np.asarray(picture.convert("L"))[..., None].astype(float)
    glow = 255 * colours(0.25 + 0.7 * share)[..., :3]
    strength = 0.7 * share[..., None]
    return pil.fromarray(np.round(grey * (1 - strength) + glow * strength).astype(np.uint8))
