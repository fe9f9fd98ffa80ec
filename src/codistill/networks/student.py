"""The file of a student: one peer as a network of its own, and how to build it."""

from pathlib import Path
from typing import Any

from codistill.errors import InputError
from codistill.networks import Network
from codistill.networks.build import build_network
from codistill.tensor_files import load_into, read_weights, write_weights


def save_student(path: Path | str, student: Network, about: dict[str, Any]) -> None:
    """Writes a network as safetensors, for `load_student`.

    The weights of a network of timm or torchvision keep the names that they have there: these
    libraries load the file by themselves.

    Args:
        path: the file to write.
        student: the network.
        about: what `load_student` has to know, at least "network" (a name for `build_network`) and
            "classes" (a list of names); see `Student.about`.

    Raises:
        InputError: one of these two is missing.
    """
    missing = {"network", "classes"} - about.keys()
    if missing:
        raise InputError(f"`about` lacks {sorted(missing)}, which load_student needs")
    write_weights(Path(path), student.original_state_dict(), about)


def read_student(path: Path | str, trust_code: bool = False) -> tuple[Network, dict[str, Any]]:
    """The network of a student's file, in eval mode, and what the file says about it.

    See `load_student`, which makes one object of both.
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
    network = build_network(about["network"], len(about["classes"]), image_size=(height, width))
    load_into(network, network.from_original(tensors), Path(path))
    return network.eval(), about
