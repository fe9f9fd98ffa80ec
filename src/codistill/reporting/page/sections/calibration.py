"""Calibration of the classifiers: reliability diagrams, ECE, NLL and Brier score."""

from collections.abc import Iterator, Sequence
from statistics import mean

from codistill.analysis import Bin, Calibration
from codistill.reporting.page.dots import dots
from codistill.reporting.page.drawing import Style, canvas, image_of
from codistill.reporting.page.measure import Measured
from codistill.reporting.page.parts import Beside, Figure, Figures, Fold, Part, Section, Table
from codistill.reporting.page.setting import Setting, named
from codistill.reporting.tables import spread_of

_FEW = 20
OfSeeds = Sequence[dict[str, Calibration]]
"""For each seed, the calibration of every classifier by name."""


def calibration_of_classifiers(measured: Measured) -> Section:
    """Reliability diagrams, ECE, NLL and Brier score."""
    have, missing = measured.parts(lambda a: a.calibration)
    parts: list[Part] = []
    if have:
        several = len(measured.of) > 1
        titles = "Filled: mean of the peers. Hollow: ensemble. Half-filled: what the method adds"
        axes = {"ece": "ECE", "nll": "NLL [nats]"}
        values = {n: {s: _values(s, of, n) for s, of in have.items()} for n in axes}
        summaries = [dots(values[n], axis, f"{n.upper()}. {titles}", 3) for n, axis in axes.items()]
        found = [_diagram(s, of_seeds) for s, of_seeds in have.items()]
        diagrams = [figure for figure in found if figure]
        table = _table(have)
        parts = [Beside(diagrams, table)]
        if several:
            parts = [Figures(summaries), Fold(table.caption, [table])]
            parts += [Fold("Reliability diagrams", [Figures(diagrams)])] if diagrams else []
        if len(diagrams) < len(have):
            missing.append(
                f"A reliability diagram needs {_FEW} test images in a bin: there are too few of "
                f"{named([s for s, f in zip(have, found, strict=True) if not f], list(have))}."
            )
    return Section(
        "trust",
        "Can their confidence be believed?",
        "A classifier that is 70 % confident should be right 70 % of the time: then it lies on the "
        "diagonal of a reliability diagram. Below the diagonal it is too confident. ECE is the "
        "mean distance from the diagonal. NLL and Brier score measure all probabilities, right and "
        "wrong. Less is better for all three. Measured on the test images in the epoch that ships, "
        "without fitting a temperature.",
        parts,
        missing,
    )


def _seeds(of_seeds: OfSeeds, classifier: str, number: str) -> list[float]:
    return [getattr(of[classifier], number) for of in of_seeds if classifier in of]


def _kinds(setting: Setting, of_seeds: OfSeeds) -> list[str]:
    """The ensemble, and the method's own classifier."""
    names = ("ensemble", setting.own_classifier)
    return [n for n in names if n and n in of_seeds[0] and n not in setting.given]


def _values(setting: Setting, of_seeds: OfSeeds, number: str) -> dict[str, list[float]]:
    peers = [mean(getattr(of[peer], number) for peer in setting.peers) for of in of_seeds]
    others = {n: _seeds(of_seeds, n, number) for n in _kinds(setting, of_seeds)}
    return {"mean peer": peers} | others


def _diagram(setting: Setting, of_seeds: OfSeeds) -> Figure | None:
    """Accuracy by confidence, the images of all seeds together; None if no bin holds enough."""
    said = []
    names = [setting.peers[0], *_kinds(setting, of_seeds)]
    drawn = {n: p for n in names if (p := list(_pooled([of[n].bins for of in of_seeds])))}
    if not drawn:
        return None
    with canvas(height=3.4) as (figure, axes):
        axes.plot([0, 1], [0, 1], color="#777777", linewidth=1, linestyle=(0, (2, 2)))
        for i, (name, points) in enumerate(drawn.items()):
            style = Style.number(i)
            axes.plot(
                *zip(*points, strict=True),
                color=style.colour,
                linestyle=style.line,
                marker=style.marker,
                markersize=4,
                label=f"{setting.called(name)}: ECE {mean(_seeds(of_seeds, name, 'ece')):.3f}",
            )
            said.append(f"{name}: {', '.join(f'{x:.2f} {y:.2f}' for x, y in points)}")
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="mean confidence", ylabel="share right")
        axes.legend(loc="upper left")
        title = f"{setting.number}, {setting.n}; bins of fewer than {_FEW} images left out"
        text = f"Confidence and share right in each bin. {'; '.join(said)}."
        return Figure(title, image_of(figure), text)


def _pooled(of_seeds: Sequence[Sequence[Bin]]) -> Iterator[tuple[float, float]]:
    """Confidence and accuracy of each bin that holds enough images."""
    for bins in zip(*of_seeds, strict=True):
        count = sum(b.count for b in bins)
        if count >= _FEW:
            confidence = sum(b.count * b.confidence for b in bins if b.confidence is not None)
            accuracy = sum(b.count * b.accuracy for b in bins if b.accuracy is not None)
            yield confidence / count, accuracy / count


def _table(have: dict[Setting, list[dict[str, Calibration]]]) -> Table:
    rows = []
    for s, of_seeds in have.items():
        for name in of_seeds[0]:
            columns = [_seeds(of_seeds, name, n) for n in ("ece", "overconfidence", "nll", "brier")]
            cells = [spread_of(values, 3) for values in columns]
            rows.append([s.head, s.called(name), *cells, str(len(columns[0]))])
    return Table(
        "Calibration of every classifier",
        ("#", "classifier", "ECE", "overconfidence", "NLL", "Brier", "n"),
        rows,
        "ECE with 15 bins of equal width (Guo et al. 2017), 0 to 1. overconfidence: mean "
        "confidence minus accuracy, -1 to 1. NLL in nats. Brier: 0 to 2. mean ± standard "
        "deviation over n seeds.",
        headers=2,
    )
