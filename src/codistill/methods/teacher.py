"""A teacher that was trained before, for the methods that have one."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from codistill.data.normalisation import Normalisation
from codistill.errors import InputError
from codistill.networks import Network
from codistill.networks.classifier import reorder_classes
from codistill.networks.peers import Peers
from codistill.networks.student import read_student
from codistill.tensor_files import read_weights

_SHOWN = 6  # names of classes in a message
_NEAR = 4  # of 255, between two estimates of a mean or a standard deviation


def teacher_of(peers: Peers, teacher: str | Path | Network | None, method: str) -> Network:
    """The teacher of these peers: a network of its own.

    Args:
        peers: the networks to be taught; the teacher needs the same classes. Where both know the
            names, a teacher with another order of classes is brought into that of the peers.
        teacher: the file of a student (RUN/student.safetensors), or a network, which is copied.
        method: the name of the class that wants it, for messages.
    """
    if teacher is None:
        raise InputError(
            f"{method} needs a teacher that was trained before: give --method.teacher "
            f"RUN/student.safetensors, or {method}(peers, teacher=network)"
        )
    about: dict[str, Any] = {}
    if isinstance(teacher, Network):
        network = copy.deepcopy(teacher)
    else:
        network, about = _load(teacher)
    bring_together(peers, network, about)
    return network


def bring_together(peers: Peers, teacher: Network, about: dict[str, Any]) -> None:
    """Brings the classes of a teacher into the order of the peers', where both know their names.

    Args:
        peers: the networks to be taught.
        teacher: the teacher; its last layers may be changed.
        about: what the teacher's file says of itself.

    Raises:
        InputError: the teacher has other classes.
    """
    if teacher.num_classes != peers.num_classes:
        raise InputError(
            f"the teacher has {teacher.num_classes} classes and the peers have "
            f"{peers.num_classes}: give a teacher of the same classes"
        )
    theirs, ours = about.get("classes", ()), peers.classes
    if len(ours) == len(theirs) and any(
        name in ours and name != ours[i] for i, name in enumerate(theirs)
    ):
        _put_in_order(teacher, theirs, ours, about)


def _put_in_order(
    network: Network, theirs: Sequence[str], ours: Sequence[str], about: dict[str, Any]
) -> None:
    """Brings the classes of a teacher into the order of the peers'."""
    if set(theirs) == set(ours) and len(set(ours)) == len(ours):
        height, width = about.get("image_size", (32, 32))
        if reorder_classes(network, [list(theirs).index(name) for name in ours], (height, width)):
            return
    raise InputError(
        f"the teacher's classes are {few(theirs)}, and those of the data are {few(ours)}, in "
        "this order, which cannot be brought together: give a teacher of the same classes"
    )


def notes_on_teacher(
    file: Path, classes: Sequence[str], normalisation: Normalisation, image_size: tuple[int, int]
) -> list[str]:
    """What a teacher was trained on otherwise than its peers will be, one line each.

    Args:
        file: the file of a student.
        classes: names of the classes of the data.
        normalisation: mean and standard deviation of the data.
        image_size: height and width of its images in pixels.
    """
    about, notes = read_weights(file)[1], []
    theirs = about.get("classes", classes)
    if set(theirs) == set(classes) and list(theirs) != list(classes):
        notes.append(f"{file}: its classes were in another order, and are put into the data's")
    elif list(theirs) != list(classes):
        notes.append(
            f"{file}: its classes are called {few(theirs)}, and those of the data "
            f"{few(classes)}: they are taken for the same, in this order"
        )
    for name in ("mean", "std"):
        there, here = about.get(name), getattr(normalisation, name)
        if there and any(abs(a - b) > _NEAR for a, b in zip(there, here, strict=False)):
            now = _numbers(here)
            notes.append(f"{file}: its images had the {name} {_numbers(there)}, these have {now}")
    size = about.get("image_size")
    if size and tuple(size) != image_size:
        (a, b), (c, d) = size, image_size
        notes.append(f"{file}: it was trained on images of {a}x{b}, and these are {c}x{d}")
    return notes


def few(names: Sequence[str]) -> str:
    """The first names of a list of classes, and their number if there are more."""
    more = f", ... ({len(names)})" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more


def _numbers(numbers: Sequence[float]) -> str:
    return " ".join(f"{x:.1f}" for x in numbers)


def _load(teacher: str | Path) -> tuple[Network, dict[str, Any]]:
    if not isinstance(teacher, str | Path):
        raise InputError(
            f"the teacher is a {type(teacher).__name__}: give a codistill.Network, or the file of "
            "a student"
        )
    if Path(teacher).is_dir():
        raise InputError(f"{teacher} is a folder: give {Path(teacher) / 'student.safetensors'}")
    return read_student(teacher)
