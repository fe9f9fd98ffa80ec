"""How far classifiers' confidence can be believed: reliability diagrams and what they come to."""

from collections.abc import Iterator, Sequence
from statistics import mean

from codistill.analysis import Analysis, Bin, Calibration
from codistill.reporting.page.dots import dots
from codistill.reporting.page.drawing import Style, canvas, image_of
from codistill.reporting.page.measure import Measured
from codistill.reporting.page.parts import Figure, Figures, Fold, Part, Section, Table
from codistill.reporting.page.setting import Setting
from codistill.reporting.tables import spread_of

_FEW = 20
Have = dict[Setting, list[Analysis]]


def calibration_of_classifiers(measured: Measured, settings: Sequence[Setting]) -> Section:
    """Reliability diagrams, ECE, NLL and Brier score."""
    have, missing = measured.parts(lambda a: a.calibration)
    parts: list[Part] = []
    if have:
        titles = "Filled: mean of the peers. Hollow: ensemble. Half-filled: what the method adds"
        parts.append(
            Figures(
                [
                    dots(_values(have, "ece"), "ECE", f"ECE. {titles}", 3),
                    dots(_values(have, "nll"), "NLL [nats]", f"NLL. {titles}", 3),
                ]
            )
        )
        diagrams = [_diagram(s, analyses) for s, analyses in have.items()]
        title = "Reliability diagrams"
        parts += [Figures(diagrams)] if len(have) <= 3 else [Fold(title, [Figures(diagrams)])]
        table = _table(have)
        parts.append(table if len(have) <= 3 else Fold(table.caption, [table]))
    return Section(
        "trust",
        "Can their confidence be believed?",
        "A classifier that gives its guesses 70 % should be right about 70 % of them: on the "
        "diagonal of a reliability diagram. Below it, it is surer than it should be. ECE is the "
        "mean distance from the diagonal; NLL and Brier score are of all probabilities, right and "
        "wrong. For all three less is better. On the test images, after the last epoch; no "
        "temperature was fitted.",
        parts,
        missing,
    )


def _of(analysis: Analysis) -> dict[str, Calibration]:
    assert isinstance(analysis.calibration, dict)
    return analysis.calibration


def _seeds(analyses: Sequence[Analysis], classifier: str, number: str) -> list[float]:
    return [getattr(_of(a)[classifier], number) for a in analyses if classifier in _of(a)]


def _kinds(setting: Setting, analyses: Sequence[Analysis]) -> list[str]:
    """The ensemble, and the classifier of its own that the method is known by."""
    names = [n for n in dict.fromkeys(["ensemble", analyses[0].own]) if n in _of(analyses[0])]
    return [n for n in names if n and n not in setting.given]


def _values(have: Have, number: str) -> dict[Setting, dict[str, list[float]]]:
    found = {}
    for s, analyses in have.items():
        peers = [mean(getattr(_of(a)[p], number) for p in s.peers) for a in analyses]
        others = {n: _seeds(analyses, n, number) for n in _kinds(s, analyses)}
        found[s] = {"mean peer": peers} | others
    return found


def _diagram(setting: Setting, analyses: Sequence[Analysis]) -> Figure:
    """Accuracy by confidence, the images of all seeds together."""
    said = []
    names = [setting.peers[0], *_kinds(setting, analyses)]
    with canvas(height=3.4) as (figure, axes):
        axes.plot([0, 1], [0, 1], color="#777777", linewidth=1, linestyle=(0, (2, 2)))
        for i, name in enumerate(names):
            points = list(_pooled([_of(a)[name].bins for a in analyses]))
            style = Style.number(i)
            axes.plot(
                *zip(*points, strict=True),
                color=style.colour,
                linestyle=style.line,
                marker=style.marker,
                markersize=4,
                label=f"{name}: ECE {mean(_seeds(analyses, name, 'ece')):.3f}",
            )
            said.append(f"{name}: {', '.join(f'{x:.2f} {y:.2f}' for x, y in points)}")
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="mean confidence", ylabel="share right")
        axes.legend(loc="upper left")
        image = image_of(figure)
    text = f"Confidence and share right in each bin. {'; '.join(said)}."
    title = f"{setting.label}, {setting.n}; bins of fewer than {_FEW} images left out"
    return Figure(title, image, text)


def _pooled(of_seeds: Sequence[Sequence[Bin]]) -> Iterator[tuple[float, float]]:
    """Confidence and accuracy of each bin that holds enough images."""
    for bins in zip(*of_seeds, strict=True):
        count = sum(b.count for b in bins)
        if count >= _FEW:
            confidence = sum(b.count * b.confidence for b in bins if b.confidence is not None)
            accuracy = sum(b.count * b.accuracy for b in bins if b.accuracy is not None)
            yield confidence / count, accuracy / count


def _table(have: Have) -> Table:
    rows = []
    for s, analyses in have.items():
        for name in _of(analyses[0]):
            columns = [_seeds(analyses, name, n) for n in ("ece", "overconfidence", "nll", "brier")]
            cells = [spread_of(values, 3) for values in columns]
            rows.append([str(s.number), s.label, name, *cells, str(len(columns[0]))])
    return Table(
        "Calibration of every classifier",
        ("#", "setting", "classifier", "ECE", "overconfidence", "NLL", "Brier", "n"),
        rows,
        "ECE with 15 bins of equal width (Guo et al. 2017), 0 to 1. overconfidence: mean "
        "confidence less accuracy, -1 to 1. NLL in nats. Brier: 0 to 2. mean ± standard "
        "deviation over n seeds.",
        headers=3,
    )
