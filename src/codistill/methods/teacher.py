"""A teacher that was trained before, for the methods that have one."""

import copy
from pathlib import Path

from codistill.errors import InputError
from codistill.networks import Network
from codistill.networks.peers import Peers
from codistill.networks.student import read_student


def teacher_of(peers: Peers, teacher: str | Path | Network | None, method: str) -> Network:
    """The teacher of these peers: a network of its own.

    Args:
        peers: the networks to be taught; the teacher needs the same classes.
        teacher: the file of a student (RUN/student.safetensors), or a network, which is copied.
        method: the name of the class that wants it, for messages.
    """
    if teacher is None:
        raise InputError(
            f"{method} needs a teacher that was trained before: give --method.teacher "
            f"RUN/student.safetensors, or {method}(peers, teacher=network)"
        )
    network = copy.deepcopy(teacher) if isinstance(teacher, Network) else _load(teacher)
    if network.num_classes != peers.num_classes:
        raise InputError(
            f"the teacher has {network.num_classes} classes and the peers have "
            f"{peers.num_classes}: give a teacher of the same classes"
        )
    return network


def _load(teacher: str | Path) -> Network:
    if not isinstance(teacher, str | Path):
        raise InputError(
            f"the teacher is a {type(teacher).__name__}: give a codistill.Network, or the file of "
            "a student"
        )
    if Path(teacher).is_dir():
        raise InputError(f"{teacher} is a folder: give {Path(teacher) / 'student.safetensors'}")
    return read_student(teacher)[0]
