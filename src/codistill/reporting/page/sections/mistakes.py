"""What the student is wrong about: confused classes, accuracy by class, its surest mistakes."""

from collections import Counter
from collections.abc import Sequence

from codistill.analysis import Mistake, Mistakes
from codistill.messages import counted
from codistill.reporting.page.measure import Measured
from codistill.reporting.page.parts import Panel, Panels, Paragraph, Part, Section, Table
from codistill.reporting.page.photographs import photograph
from codistill.reporting.page.setting import Setting, folds

Counts = Counter[tuple[int, int]]
"""Images by (label, guess)."""

_IN_MATRIX = 12
"""Classes up to which the page shows the whole matrix."""
_PAIRS = 12
_CLASSES = 12


def what_is_mistaken(measured: Measured) -> Section:
    """Confusion, accuracy by class and wrong photographs of each setting's student."""
    have, missing = measured.parts(lambda a: a.mistakes)
    classes = {s: of[0].classes for s, of in measured.of.items() if of}
    parts = {s: _parts(s, of, classes[s]) for s, of in have.items()}
    return Section(
        "mistakes",
        "Where is the student wrong?",
        "The network that ships, on the test images; of several seeds all guesses together. The "
        "photographs are those that the student of the first seed is most sure and wrong about.",
        folds(parts, len(measured.of) > 1),
        missing,
    )


def _parts(setting: Setting, of_seeds: Sequence[Mistakes], classes: Sequence[str]) -> list[Part]:
    counts = sum((m.counts for m in of_seeds), Counts())
    confused = _matrix if len(classes) <= _IN_MATRIX else _pairs
    parts: list[Part] = [confused(counts, classes), _by_class(counts, classes)]
    if of_seeds[0].surest:
        panels = [_panel(m, classes) for m in of_seeds[0].surest]
        caption = f"Its most confident mistakes, seed {setting.results[0].config.seed}"
        return [*parts, Panels(caption, (), [panels])]
    return [*parts, Paragraph("It makes no mistake.")]


def _matrix(counts: Counts, classes: Sequence[str]) -> Table:
    """Every label against every guess."""
    places = range(len(classes))
    most = max((n for (label, guess), n in counts.items() if label != guess), default=0)
    wrong = [[counts[i, j] if i != j else 0 for j in places] for i in places]
    return Table(
        "Confusion matrix",
        ("is ↓ taken for →", *classes),
        [[classes[i], *(str(counts[i, j]) for j in places)] for i in places],
        "Images of the row's class that are taken for the column's class. The darker, the more "
        "mistakes.",
        shades=[[n / most if most else 0.0 for n in row] for row in wrong],
    )


def _pairs(counts: Counts, classes: Sequence[str]) -> Table:
    """The pairs of classes that are confused most."""
    wrong = {pair: n for pair, n in counts.items() if pair[0] != pair[1]}
    ranked = sorted(wrong.items(), key=lambda entry: (-entry[1], entry[0]))[:_PAIRS]
    of_label = _images(counts)
    return Table(
        "The most confused pairs of classes",
        ("is", "taken for", "images", "of its images %"),
        [[classes[i], classes[j], str(n), f"{100 * n / of_label[i]:.0f}"] for (i, j), n in ranked],
        headers=2,
    )


def _by_class(counts: Counts, classes: Sequence[str]) -> Table:
    """Accuracy of each class, the worst first; of many classes those at the ends."""
    images = _images(counts)
    ranked = sorted(images, key=lambda label: (counts[label, label] / images[label], label))
    shown, below = ranked, ""
    if len(ranked) > _CLASSES:
        half = _CLASSES // 2
        shown = [*ranked[:half], *ranked[-half:]]
        below = (
            f"The {half} worst and the {half} best of {counted(len(ranked), 'class', 'classes')}."
        )
    return Table(
        "Accuracy by class, the worst first",
        ("class", "right %", "right", "images"),
        [
            [
                classes[label],
                f"{100 * counts[label, label] / images[label]:.0f}",
                str(counts[label, label]),
                str(images[label]),
            ]
            for label in shown
        ],
        below,
    )


def _images(counts: Counts) -> Counter[int]:
    """The number of images of each class that has any."""
    found = Counter[int]()
    for (label, _), n in counts.items():
        found[label] += n
    return found


def _panel(mistake: Mistake, classes: Sequence[str]) -> Panel:
    label, guess = classes[mistake.label], classes[mistake.guess]
    name = mistake.name or f"image {mistake.index}"
    text = f"{guess} {mistake.confidence:.0%}, is {label}: {name}"
    link = mistake.file.resolve().as_uri() if mistake.file else ""
    return Panel(
        photograph(mistake.image, None), f"{label}, taken for {guess}", text, "wrong", link
    )
