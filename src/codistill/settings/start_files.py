"""The files that the peers of a configuration start from."""

import hashlib
from pathlib import Path

from codistill import files
from codistill.errors import InputError
from codistill.networks.weights_in_file import parts_of, split_choice
from codistill.settings.config import Config


def start_files(config: Config) -> list[Path | None]:
    """The file that each peer starts from, K of them; FILE#peer0 for a peer of a run.

    A run's folder stands for its weights after the last epoch. Where it, or a file of it, is given
    for all, each peer gets its own weights.

    Raises:
        InputError: the run has no weights, or another number of peers.
    """
    starts = [start and _weights_in(start) for start in config.start_weights()]
    first = starts[0]
    if first is None or len(set(starts)) > 1 or "," in (config.weights or ""):
        return starts
    path, choice = split_choice(first)
    peers = 0 if choice else parts_of(path)[0]
    if not peers:
        return starts
    if peers != config.peers:
        raise InputError(
            f"{path} holds the weights of {peers} peers, and {config.peers} are to start: give "
            f"--peers {peers}, or choose one, such as --weights {path}#peer0"
        )
    return [Path(f"{path}#peer{k}") for k in range(peers)]


def start_fingerprints(config: Config) -> list[str]:
    """A hexadecimal digest of each file that a peer starts from, and of what is chosen in it.

    Random starts and files that are gone are left out.
    """
    chosen = [split_choice(start) for start in start_files(config) if start]
    digests = {path: files.sha256(path) for path in {path for path, _ in chosen if path.is_file()}}
    return [
        hashlib.sha256(f"{digests[path]}#{choice}".encode()).hexdigest()
        if choice
        else digests[path]
        for path, choice in chosen
        if path in digests
    ]


def _weights_in(start: Path) -> Path:
    """The file of a run's weights where the run's folder is given; else what is given."""
    folder, choice = split_choice(start)
    if not (folder / "config.yaml").is_file():
        return start
    file = folder / "weights.safetensors"
    if not file.exists():
        raise InputError(
            f"weights: {folder} has no {file.name}, so its run is not finished: continue it with "
            f"codistill train --resume {folder}"
        )
    return Path(f"{file}#{choice}") if choice else file
