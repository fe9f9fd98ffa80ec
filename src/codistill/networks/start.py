"""Weights that a network starts from."""

import functools
from collections.abc import Sequence
from pathlib import Path

from codistill.messages import note
from codistill.networks.fitting import load_fitting
from codistill.networks.network import Network
from codistill.networks.weights_in_file import read_tensors, split_choice


def start_from(network: Network, file: Path, image_size: tuple[int, int] | None = None) -> None:
    """Loads the weights in a file into a network, and logs one line on what was not simply loaded.

    The weights may lie in dicts (`state_dict`, `model_ema`, ...), and their names may begin with
    those of modules around the network (`module.`, `backbone.`, ...). Only a classifier may be
    absent or of other classes: it keeps its random weights. Position embeddings of another size
    are resampled.

    Args:
        network: the network that will be trained.
        file: a student of a run, the weights of a run, or weights of the same architecture under
            the names of its own library: .safetensors, or a file that torch.save wrote. FILE#NAME
            chooses those under a name, such as run/weights.safetensors#peer0.
        image_size: height and width of the images in pixels, which position embeddings follow.
            Default: square images.

    Raises:
        InputError: the file is absent, damaged, of another architecture, or holds weights that fit
            more than once.
    """
    start_each_from([network], [file], image_size)


def start_each_from(
    networks: Sequence[Network],
    files: Sequence[Path | None],
    image_size: tuple[int, int] | None = None,
) -> None:
    """As `start_from`, for each network and its file; those without a file stay as they are."""
    read = functools.lru_cache(1)(read_tensors)  # neighbours often have one file
    for network, file in zip(networks, files, strict=True):
        if file is not None:
            path, choice = split_choice(file)
            said = load_fitting(network, read(path), str(path), choice, image_size)
            if said:
                note(f"{path}: {said}")
