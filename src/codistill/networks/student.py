"""The student: one peer as a network of its own, in a file that says how to build it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from codistill.data.in_memory import Normalisation
from codistill.data.photograph import EVAL_SPARE, Box, BrokenImageError, centre_box, load_crops
from codistill.errors import InputError
from codistill.files import load_into, read_weights, write_weights
from codistill.importing import require_pillow
from codistill.networks import Network
from codistill.networks.build import build_network


def save_student(path: Path | str, student: Network, about: dict[str, Any]) -> None:
    """Writes a network as safetensors; `about` has to name its "network" and "classes".

    The weights of a network of timm or torchvision go by the names that they have there: the file
    can be loaded without codistill.
    """
    missing = {"network", "classes"} - about.keys()
    if missing:
        raise InputError(f"`about` lacks {sorted(missing)}, which load_student needs")
    write_weights(Path(path), student.original_state_dict(), about)


def load_student(path: Path | str, trust_code: bool = False) -> tuple[Network, dict[str, Any]]:
    """A student in eval mode, and what is known about it.

    Args:
        path: the file that `save_student` or a run wrote.
        trust_code: whether to import and call the code that the file names, where the network is
            none of codistill's but was given as `package.module:callable`.

    Returns:
        The network, which takes images (B, 3, H, W) normalised as `(pixel - mean) / std`, and a
        dict with "network", "classes" (names, in the order of the logits), and, where a run wrote
        it, "mean" and "std" (per channel, for pixels of 0 to 255), "image_size", "crop" (see
        `load_photograph`), "method", "classifier" (its name in the report) and "peer" (its number).
    """
    tensors, about = read_weights(Path(path))
    if "network" not in about or "classes" not in about:
        raise InputError(f"{path} does not say which network it is: give a student of a run")
    if ":" in about["network"] and not trust_code:
        raise InputError(
            f"{path} wants {about['network']} to be imported and called: if you trust the file, "
            "give load_student(..., trust_code=True)"
        )
    height, width = about.get("image_size", (32, 32))
    network = build_network(about["network"], len(about["classes"]), (height, width))
    load_into(network, network.from_original(tensors), Path(path))
    return network.eval(), about


def load_photograph(path: Path | str, about: dict[str, Any]) -> Float[Tensor, "1 3 H W"]:
    """An image as the evaluation of a run shows it to the student: cut, resized, normalised.

    Args:
        path: of an image of any kind and size.
        about: what `load_student` says of the student. Of the largest square in the middle, the
            share "crop" is resized to "image_size".

    Raises:
        InputError: the image cannot be read, or `about` is not that of a run.
    """
    missing = {"mean", "std", "image_size"} - about.keys()
    height, width = about.get("image_size", (0, 0))
    if missing or height != width:
        raise InputError(f"`about` lacks {sorted(missing) or 'a square image_size'}")

    def middle(width: int, height: int) -> list[Box]:
        return [centre_box(width, height, about.get("crop", 1.0))]

    require_pillow()
    try:
        (image,) = load_crops(Path(path).read_bytes, middle, height, EVAL_SPARE)
    except BrokenImageError as error:
        raise InputError(f"{path}: {error}") from error
    normalisation = Normalisation(tuple(about["mean"]), tuple(about["std"]))
    return normalisation(torch.from_numpy(np.array(image))[None])
