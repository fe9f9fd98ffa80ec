"""Photographs classified: many files in batches, read by worker processes."""

import glob
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from codistill.data.batches.broken import BrokenImages
from codistill.data.batches.photograph import side_of
from codistill.data.batches.streamed import StreamedEvalBatches
from codistill.data.encoded import EncodedSplit, Files, Packed
from codistill.data.normalisation import Normalisation
from codistill.data.readers.folders import is_image, list_images
from codistill.errors import InputError
from codistill.files import place_of
from codistill.runs.student import Student
from codistill.training.device import device_of
from codistill.training.folding import folded_network


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of an image.

    Attributes:
        image: path of the file.
        classes: the most probable classes with their probabilities, the first the most probable;
            none of a broken image.
        broken: why the image cannot be read; "" if it can.
    """

    image: str
    classes: Sequence[tuple[str, float]]
    broken: str = ""


def predict(
    student: Student,
    images: Sequence[str],
    top: int = 5,
    batch_size: int = 64,
    workers: int = 0,
    watch: Callable[[int], None] = lambda done: None,
) -> list[Prediction]:
    """Classifies image files, in their order. Broken ones say so and stop nothing.

    Args:
        student: the classifier.
        images: N paths.
        top: classes that are named of each image, the most probable ones.
        batch_size: images that are computed at a time.
        workers: number of processes that read; 0: this process reads. See `Workers`.
        watch: called with the number of images done since the last call.

    Raises:
        InputError: the student does not say how images are normalised.
    """
    batches = _batches(student, images, batch_size, workers)
    found: dict[int, list[tuple[str, float]]] = {}
    network = None
    with torch.inference_mode():
        for batch in batches:
            (view,), places = batch.views, batch.labels.tolist()  # see `_batches`
            if network is None:
                network = folded_network(student.network, view, len(images))
            shares, classes = network(view).softmax(dim=1).topk(min(top, len(student.classes)))
            for place, p, c in zip(places, shares.tolist(), classes.tolist(), strict=True):
                found[place] = [(student.classes[i], x) for i, x in zip(c, p, strict=True)]
            watch(len(places))
    return [
        Prediction(image, found.get(i, []), batches.broken.found.get(image, ""))
        for i, image in enumerate(images)
    ]


def _batches(
    student: Student, images: Sequence[str], batch_size: int, workers: int
) -> StreamedEvalBatches:
    """The images as an evaluation reads them. The label of each is its place among them."""
    about = student.about
    size = side_of(about)
    store = Files("", Packed(images))
    places = torch.arange(len(images))
    return StreamedEvalBatches(
        EncodedSplit(places, store, np.arange(len(images)), about.get("bits")),
        batch_size,
        Normalisation(about["mean"], about["std"]),
        size,
        workers,
        device_of(student.network),
        _Named(len(images)),
        about.get("crop", 1.0),
    )


class _Named(BrokenImages):
    """A record of broken images that says nothing, however many there are."""

    def add(self, images: Iterable[tuple[str, str]]) -> None:
        self.found.update(images)


def image_files(given: Iterable[str]) -> list[str]:
    """The image files that are meant, each once: files, those in folders at any depth, globs.

    Raises:
        InputError: there is no such file, or a folder or a glob has no image.
    """
    found: dict[str, None] = {}
    for text in given:
        path = place_of(text)
        inside = [str(path)]
        if not path.exists() and glob.has_magic(str(path)):
            there = map(Path, sorted(glob.iglob(str(path), recursive=True)))
            inside = [file for place in there for file in _inside(place)]
            if not inside:
                raise InputError(f"{text} fits no image")
        elif path.is_dir():
            inside = _inside(path)
            if not inside:
                raise InputError(f"{path} has no image in it")
        elif not path.exists():
            raise InputError(f"there is no file {path}")
        found |= dict.fromkeys(inside)
    return list(found)


def _inside(path: Path) -> list[str]:
    """The images in a folder, at any depth, sorted; the file itself if it is an image."""
    if not path.is_dir():
        return [str(path)] if is_image(path) else []
    folder = path.resolve()
    names = sorted(name for name, _ in list_images(folder.parent, folder, Counter()))
    return [str(path / Path(name).relative_to(folder.name)) for name in names]
