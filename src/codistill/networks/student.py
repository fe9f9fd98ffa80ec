"""The student: one peer as a network of its own, in a file that says how to build it."""

from pathlib import Path
from typing import Any

from codistill.errors import InputError
from codistill.files import load_into, read_weights, write_weights
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
        `load_image`), "method", "classifier" (its name in the report) and "peer" (its number).
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
