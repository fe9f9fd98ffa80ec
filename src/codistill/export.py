"""The student: one peer as a network of its own, in a file that says how to build it."""

from pathlib import Path
from typing import Any

from codistill.errors import InputError
from codistill.files import read_weights, write_weights
from codistill.networks import Network, build_network


def save_student(path: Path | str, student: Network, about: dict[str, Any]) -> None:
    """Writes a network as safetensors; `about` has to name its "network" and "classes"."""
    missing = {"network", "classes"} - about.keys()
    if missing:
        raise InputError(f"`about` lacks {sorted(missing)}, which load_student needs")
    write_weights(Path(path), student.state_dict(), about)


def load_student(path: Path | str) -> tuple[Network, dict[str, Any]]:
    """A student in eval mode, and what is known about it.

    Returns:
        The network, which takes images (B, 3, H, W) normalised as `(pixel - mean) / std`, and a
        dict with "network", "classes" (names, in the order of the logits), and, where a run wrote
        it, "mean" and "std" (per channel, for pixels of 0 to 255), "image_size", "method", "peer".
    """
    tensors, about = read_weights(Path(path))
    if "network" not in about or "classes" not in about:
        raise InputError(f"{path} does not say which network it is: give a student of a run")
    network = build_network(about["network"], len(about["classes"]))
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(f"{path} does not hold the weights of {about['network']}") from error
    return network.eval(), about
