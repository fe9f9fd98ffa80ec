"""The file of a student: one peer as a network of its own, and how to build it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codistill.checks import check, make, setting
from codistill.errors import InputError, MissingExtraError, reason
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
    said = check_about(about, path)
    if ":" in said.network and not trust_code:
        raise InputError(
            f"{path} wants {said.network} to be imported and called: if you trust the file, "
            "give --trust_code true (in Python: load_student(..., trust_code=True))"
        )
    height, width = said.image_size
    try:
        network = build_network(said.network, len(said.classes), image_size=(height, width))
        tensors = network.from_original(tensors)
    except MissingExtraError:
        raise
    except Exception as error:  # a file may ask for anything
        raise InputError(f"{path} is no student that can be built: {reason(error)}") from error
    load_into(network, tensors, Path(path))
    return network.eval(), about


def check_about(about: dict[str, Any], path: Path | str) -> "_About":
    """What a student's file says of itself, checked. Raises InputError, which names the path."""
    return make(_About, about, path)


@dataclass(frozen=True)
class _About:
    """What a student's file may say of itself, with limits; see `Student.about`."""

    network: str
    classes: list[str]
    image_size: list[int] = setting([32, 32], numbers=2, above=0, at_most=4096)
    mean: list[float] | None = setting(None, numbers=3)
    std: list[float] | None = setting(None, numbers=3, above=0)
    crop: float = setting(1.0, above=0, at_most=1)

    def __post_init__(self) -> None:
        check(self)
        if not self.classes:
            raise InputError("classes is empty")
