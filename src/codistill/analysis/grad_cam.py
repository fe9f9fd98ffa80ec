"""Where in an image a classifier looks: Grad-CAM, computed by captum.

Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra: Grad-CAM: Visual Explanations from Deep Networks
via Gradient-based Localization, ICCV 2017, equations 1 and 2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8

from codistill.analysis.predictions import Batches, Predictions
from codistill.method import Method


@dataclass(frozen=True)
class HeatMap:
    """What in an image speaks for a classifier's first guess.

    Attributes:
        classifier: its name.
        guess: the class, 0 to C - 1.
        probability: that the classifier gives it, 0 to 1.
        heat: (H, W), 0 to 1; the largest is 1, unless all are 0.
        blank: whether all are 0: no place speaks for the guess, or a class token is all that the
            head reads.
    """

    classifier: str
    guess: int
    probability: float
    heat: Float[np.ndarray, "H W"]
    blank: bool


@dataclass(frozen=True)
class Picture:
    """An image, and where every classifier looks.

    Attributes:
        index: its place in the split.
        label: its class, 0 to C - 1.
        image: as the networks see it, but not normalised: (H, W, 3), RGB, 0 to 255.
        heat_maps: of the classifiers, in their order. The ensemble and a classifier of the method's
            own read all peers' maps, and theirs is that of the maps laid side by side as one; a
            classifier that is one of the peers, and a teacher, have none.
    """

    index: int
    label: int
    image: UInt8[np.ndarray, "H W 3"]
    heat_maps: tuple[HeatMap, ...]


def disagreements(predictions: Predictions, n: int) -> list[int]:
    """The places in the split of up to n images that tell classifiers apart; always the same ones.

    Those with the most different first guesses come first; among equals, those of which the
    classifiers are surest. Fewer than n where they disagree on fewer.
    """
    raise NotImplementedError


def grad_cam(method: Method, batches: Batches, index: Sequence[int]) -> tuple[Picture, ...]:
    """Where every classifier looks in the images at these places of a split.

    Each map is that of the classifier's own first guess. A peer's is taken at its own last feature
    map.

    Raises:
        InputError: there is no such place, or the image there is broken.
        MissingExtraError: captum is not installed.
    """
    raise NotImplementedError


def to_pixels(
    images: Float[torch.Tensor, "B 3 H W"], mean: Sequence[float], std: Sequence[float]
) -> UInt8[torch.Tensor, "B H W 3"]:
    """Normalised images as pixels again: what `Normalisation` was given."""
    raise NotImplementedError
