"""How far a classifier's confidence can be believed."""

from dataclasses import dataclass

from codistill.analysis.predictions import Predictions

BINS = 15  # as Guo et al. 2017


@dataclass(frozen=True)
class Bin:
    """The images of which a classifier is about equally confident.

    Attributes:
        low, high: confidence above `low` and up to `high`; the first bin holds 0 too.
        count: images.
        confidence: their mean confidence, 0 to 1; None where there is no image.
        accuracy: the share of them that it is right about, 0 to 1; None where there is no image.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """A reliability diagram, and what it comes to.

    Attributes:
        bins: of equal width, from 0 to 1.
        ece: expected calibration error, 0 to 1: mean of |accuracy - confidence| over bins, weighted
            with their images (Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural
            Networks, ICML 2017, equation 3).
        overconfidence: mean confidence less accuracy, -1 to 1.
        nll: mean -log p of the label, in nats.
        brier: mean over images of the sum over classes of squared errors, 0 to 2 (Brier 1950).
    """

    bins: tuple[Bin, ...]
    ece: float
    overconfidence: float
    nll: float
    brier: float


def calibration(predictions: Predictions, classifier: str, bins: int = BINS) -> Calibration:
    """How far one classifier's confidence can be believed."""
    raise NotImplementedError
