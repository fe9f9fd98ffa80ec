"""Everything that is measured of a finished run beyond its history, in one call."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from codistill.analysis.calibration import Calibration
from codistill.analysis.classes import ClassChanges
from codistill.analysis.grad_cam import Picture
from codistill.analysis.missing import Missing
from codistill.analysis.predictions import Predictions
from codistill.analysis.similarity import Similarities
from codistill.run import Run


@dataclass(frozen=True)
class Analysis:
    """What was measured of a finished run. A part that there is none of says why (`Missing`).

    Attributes:
        path: its folder.
        weights: those after the last epoch, or the "best" by validation.
        split: what it was measured on, "test" or "val".
        classes: C names, in the order of the labels.
        kept: the classifier that is exported: a peer, or a leader or mean teacher.
        own: what the kept one is compared with: the method's own classifier, such as "fused" or
            "gated"; without one, the ensemble; None with one peer.
        predictions: of all images of the split.
        calibration: of every classifier, by name.
        class_accuracy: of every classifier, by name: for each class % right, None without images.
        changes: from the kept classifier to `own`, class by class.
        similarity: of the peers' feature maps.
        pictures: Grad-CAM of chosen images, or of those on which the classifiers disagree most.
    """

    path: Path
    weights: Literal["last", "best"]
    split: Literal["test", "val"]
    classes: tuple[str, ...]
    kept: str | None
    own: str | None
    predictions: Predictions | Missing
    calibration: dict[str, Calibration] | Missing
    class_accuracy: dict[str, list[float | None]] | Missing
    changes: ClassChanges | Missing
    similarity: Similarities | Missing
    pictures: tuple[Picture, ...] | Missing


def analyse(
    run: Run | Path | str,
    *,
    weights: Literal["last", "best"] = "last",
    split: Literal["test", "val"] = "test",
    pictures: Sequence[int] | int = 6,
    similarity_images: int = 2000,
) -> Analysis:
    """Measures a finished run, from its weights and its images.

    Predictions are those of the whole split. A folder without weights, images that are gone, a
    library that is not installed: the parts that need them are `Missing`, the others are there.

    Args:
        run: the run, opened with another `root`, `device` or number of `workers` where that is
            needed; or its folder.
        weights: those after the last epoch, or the best by validation.
        split: the images.
        pictures: places of images in the split, or how many to choose among those on which
            classifiers disagree. 0: none.
        similarity_images: how many images feature maps are compared on. 0: none.

    Raises:
        InputError: the folder holds no finished run, or is damaged.
    """
    raise NotImplementedError
