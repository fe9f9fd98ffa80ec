"""One classifier of a run, or of a student's file, ready to classify photographs."""

from pathlib import Path

from torch import Tensor, nn

from codistill.errors import InputError, did_you_mean
from codistill.files import place_of
from codistill.methods.method import Method
from codistill.runs.exporting.read import open_export
from codistill.runs.finished import load_result
from codistill.runs.folder import CONFIG
from codistill.runs.results import RunScores
from codistill.runs.run import STUDENT, Run
from codistill.runs.student import Student, load_student
from codistill.tensor_files import read_weights
from codistill.training.device import choose_device

SHIPS = "student"
"""The name of the network that ships, whichever peer it is."""


def open_classifier(
    place: Path | str, of: str = SHIPS, device: str = "auto", trust_code: bool = False
) -> Student:
    """A classifier in eval mode, with what its images have to be like.

    Args:
        place: folder of a run or of an export, or a file that a run wrote as student.safetensors.
        of: "student", the network that ships; of a finished run also another classifier of its
            report, such as "peer1", "ensemble" or "fused", with weights of the same epoch.
        device: device to compute on; auto: a GPU if there is one.
        trust_code: whether to import code that the place names as package.module:name.

    Raises:
        InputError: there is no such classifier, or the place is damaged or not trusted.
    """
    path = place_of(place)
    run = path.is_dir() and ((path / CONFIG).exists() or (path / STUDENT).exists())
    if of != SHIPS and path.is_dir():
        student = _of_run(path, of, device, trust_code)
    elif of != SHIPS:
        raise InputError(f"{path} holds one network: {of!r} is for the folder of a run")
    elif run and not (path / STUDENT).exists():
        raise InputError(f"{path} has no {STUDENT} yet: codistill train --resume {path}")
    elif path.is_dir() and not run:
        student = open_export(path, trust_code)
    else:
        student = load_student(path / STUDENT if run else path, trust_code)
    student.network.to(choose_device(device))
    return student


def shipped(path: Path, device: str = "auto", trust_code: bool = False) -> tuple[Run, RunScores]:
    """A finished run with the weights of the epoch that ships in its method, and its scores.

    Raises:
        InputError: the run is not finished, damaged or not trusted, or lacks these weights.
    """
    scores = load_result(path).scores
    run = Run(path, device, trust_code=trust_code)
    run.load_weights(scores.kept[1])
    return run, scores


def _of_run(path: Path, of: str, device: str, trust_code: bool) -> Student:
    """Another classifier of a run than its student, with what the student's file says of images."""
    run, scores = shipped(path, device, trust_code)
    kept = run.method.students()
    if of not in (known := {SHIPS, *scores.last, *kept}):
        raise InputError(f"{path} has no classifier {of!r}: {did_you_mean(of, known)}")
    networks = run.config.networks()
    about = read_weights(path / STUDENT)[1] | {"classifier": of}
    peers = {name: k for k, name in enumerate(f"peer{k}" for k in range(len(networks)))}
    if of in kept or of in peers:
        k = kept[of].k if of in kept else peers[of]
        network: nn.Module = kept[of].network() if of in kept else run.method.peers.student(k)
        about |= {"peer": k, "network": networks[k]}
    else:
        network = _Alone(run.method, of)
        about |= {"peer": None, "network": f"{of} of {', '.join(networks)}"}
    return Student(network.eval(), about)


class _Alone(nn.Module):
    """One classifier of a method as a network of its own.

    Args:
        method: the method with its weights.
        of: name of the classifier.
    """

    def __init__(self, method: Method, of: str):
        super().__init__()
        self.method = method
        self.of = of

    def forward(self, images: Tensor) -> Tensor:
        return self.method([images]).classifiers[self.of]
