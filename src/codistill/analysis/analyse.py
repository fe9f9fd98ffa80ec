"""All measurements of a finished run beyond its history, in one call."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from codistill.analysis.calibration import Calibration, calibration
from codistill.analysis.classes import ClassChanges, class_accuracies, class_changes
from codistill.analysis.grad_cam import Picture, disagreements, grad_cam
from codistill.analysis.mistakes import Mistakes, mistakes
from codistill.analysis.predictions import EvalSet, Missing, Predictions, predict
from codistill.analysis.similarity import Similarities, map_similarities
from codistill.errors import InputError, MissingExtraError
from codistill.methods.method import Method
from codistill.runs.finished import Result, load_result
from codistill.runs.run import WEIGHTS, Run


@dataclass(frozen=True)
class Analysis:
    """The measurements of a finished run. A part that could not be measured is `Missing`.

    Attributes:
        path: folder of the run.
        weights: "last" for those after the last epoch, or "best" by validation.
        split: images that were used, "test" or "val".
        classes: C names, in the order of the labels.
        kept: name of the classifier that is exported: a peer, a leader or a mean teacher. None if
            the best weights are asked of a run that held no images out.
        own: name of the classifier that `kept` is compared with: the method's own one, such as
            "fused" or "gated", or else the ensemble; None with one peer.
        predictions: predictions for all images of the split that are not broken.
        calibration: calibration of every classifier, by name.
        class_accuracy: accuracies of every classifier, by name: in % for each class, None for a
            class without images.
        mistakes: right and wrong guesses of the kept classifier, with its surest wrong ones.
        changes: changes from the kept classifier to `own`, class by class.
        similarity: similarity of the peers' feature maps.
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
    mistakes: Mistakes | Missing
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
    device: str | None = None,
    root: str | None = None,
    workers: int | None = None,
    trust_code: bool = False,
) -> Analysis:
    """Measures a finished run, from its weights and its images.

    Predictions are made for the whole split. If weights, images or a package are missing, the parts
    that need them are `Missing`; the others are measured.

    Args:
        run: folder of the run, or the run itself, which then gets these weights.
        weights: weights after the last epoch, or the best by validation.
        split: images to use.
        pictures: places of images in the split, or the number of images to choose among those that
            only one of `kept` and `own` is right about; see `disagreements`. 0 or none: no
            pictures.
        similarity_images: number of images on which feature maps are compared, 4 or more; 0: they
            are not compared.
        device: device to compute on; see `Run`, also for the next two.
        root: folder or file that now holds the images.
        workers: processes that read images.
        trust_code: whether to import code that the folder names.

    Raises:
        InputError: the folder holds no finished run, or is damaged.
    """
    result = load_result(run.path if isinstance(run, Run) else Path(run))
    student = result.scores.student
    kept = student.best if weights == "best" else student.last
    classes = tuple(result.manifest.classes)
    try:
        _require_weights(result, weights)
        if not isinstance(run, Run):
            run = Run(result.path, device, root, workers, trust_code=trust_code)
        run.load_weights(weights)
        if split not in (sets := run.data().evaluate_on):
            raise InputError(f"{result.path} held no images out: it has no split {split!r}")
        method, batches = run.method, sets[split]
        predictions = predict(method, batches)
    except (InputError, MissingExtraError) as error:
        own, gone = _own(result, result.manifest.students), Missing(str(error))
        return Analysis(result.path, weights, split, classes, kept, own, *[gone] * 7)
    assert kept is not None  # as its weights are there
    own = _own(result, method.students())
    if own not in predictions.of:  # the code of the method was changed since
        own = "ensemble" if "ensemble" in predictions.of else None
    return Analysis(
        result.path,
        weights,
        split,
        classes,
        kept,
        own,
        predictions,
        {name: calibration(predictions, name) for name in predictions.of},
        {name: class_accuracies(predictions, name, len(classes)) for name in predictions.of},
        _part(lambda: mistakes(predictions, kept, batches)),
        _part(lambda: _changes(predictions, kept, own, classes)),
        _part(lambda: _similarity(method, batches, similarity_images)),
        _part(lambda: _pictures(method, batches, pictures, predictions, kept, own)),
    )


def _own(result: Result, students: Iterable[str]) -> str | None:
    """The method's own classifier, or else the ensemble; None with one peer.

    Classifiers that may be kept and networks that the method was given do not count.
    """
    own = result.scores.own_classifier({*students, *result.config.method})
    return own or ("ensemble" if "ensemble" in result.scores.last else None)


def _require_weights(result: Result, weights: str) -> None:
    if weights == "best" and result.scores.student.best is None:
        raise InputError(f"{result.path} held no images out: none of its epochs is the best")
    name = WEIGHTS[weights]
    if not (result.path / name).exists():
        raise InputError(f"{name} is not in {result.path}")


_T = TypeVar("_T")


def _part(measure: Callable[[], _T]) -> _T | Missing:
    try:
        return measure()
    except (InputError, MissingExtraError) as error:
        return Missing(str(error))


def _changes(
    predictions: Predictions, kept: str, own: str | None, names: tuple[str, ...]
) -> ClassChanges:
    if own is None:
        raise InputError("there is one classifier: nothing to compare it with")
    return class_changes(predictions, kept, own, names)


def _similarity(method: Method, batches: EvalSet, images: int) -> Similarities:
    if not images:
        raise InputError("no images were asked for to compare feature maps on")
    return map_similarities(method, batches, images)


def _pictures(
    method: Method,
    batches: EvalSet,
    pictures: Sequence[int] | int,
    predictions: Predictions,
    kept: str,
    own: str | None,
) -> tuple[Picture, ...]:
    if not pictures:
        raise InputError("no pictures were asked for")
    if isinstance(pictures, int):
        pictures = disagreements(predictions, kept, own, pictures)
        if not pictures:
            raise InputError(f"{kept} and {own} agree on every image")
    return grad_cam(method, batches, pictures)
