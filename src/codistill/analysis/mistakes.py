"""The mistakes of one classifier: the classes that it confuses, and its surest wrong guesses."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from codistill.analysis.grad_cam import to_pixels
from codistill.analysis.predictions import EvalSet, Predictions
from codistill.data.batches.copies import Copies
from codistill.data.encoded import EncodedSplit, Files


@dataclass(frozen=True)
class Mistake:
    """An image that a classifier is wrong about.

    Attributes:
        index: place of the image in its split.
        label: class of the image, 0 to C - 1.
        guess: class of the classifier's first guess.
        confidence: probability that it gives to the guess, 0 to 1.
        image: pixels as the networks see them, but not normalised: (H, W, 3), RGB, 0 to 255.
        name: name of the image in its data set; None in data sets without names.
        file: path of the image; None if it is no file of its own.
    """

    index: int
    label: int
    guess: int
    confidence: float
    image: UInt8[np.ndarray, "H W 3"]
    name: str | None
    file: Path | None


@dataclass(frozen=True)
class Mistakes:
    """The right and wrong guesses of one classifier.

    Attributes:
        classifier: its name.
        counts: number of images by (label, guess), the right ones among them; pairs without an
            image are left out.
        surest: the images that it is most confidently wrong about, the surest first.
    """

    classifier: str
    counts: Counter[tuple[int, int]]
    surest: tuple[Mistake, ...]


def mistakes(
    predictions: Predictions, classifier: str, batches: EvalSet, shown: int = 8
) -> Mistakes:
    """What a classifier is wrong about.

    Args:
        predictions: the predictions for the images of `batches`.
        classifier: its name.
        batches: the images.
        shown: number of wrong images to read again, for `Mistakes.surest`.
    """
    of = predictions.of[classifier]
    counts = Counter(zip(predictions.labels.tolist(), of.guess.tolist(), strict=True))
    order = of.confidence.argsort(descending=True, stable=True)
    wrong = order[~predictions.right(classifier)[order]][:shown]
    places = predictions.index[wrong].tolist()
    chosen = zip(wrong.tolist(), places, _pixels(batches, places), strict=True)
    surest = [
        Mistake(
            place,
            int(predictions.labels[i]),
            int(of.guess[i]),
            float(of.confidence[i]),
            image,
            *_where(batches.split, place),
        )
        for i, place, image in chosen
    ]
    return Mistakes(classifier, counts, tuple(surest))


def _pixels(batches: EvalSet, places: list[int]) -> Iterable[UInt8[np.ndarray, "H W 3"]]:
    if places:
        chosen = batches.take(torch.tensor(places, dtype=torch.int64))
        for batch in chosen:
            yield from to_pixels(batch.views[0], chosen.normalisation).cpu().numpy()


def _where(split: object, place: int) -> tuple[str | None, Path | None]:
    """The name and the file of an image of a split."""
    if not isinstance(split, EncodedSplit):
        return None, None
    store, i = split.store, int(split.index[place])
    if isinstance(store, Copies):
        store = store.source
    return split.name(place), Path(store.path(i)) if isinstance(store, Files) else None
