"""Classes that the method's own classifier knows better or worse than the kept network."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from codistill.analysis import ClassChange, ClassChanges
from codistill.messages import signed
from codistill.reporting.page.drawing import COLOURS, canvas, image_of
from codistill.reporting.page.measure import Measured
from codistill.reporting.page.parts import Beside, Figure, Paragraph, Part, Section, Table
from codistill.reporting.page.setting import Setting, folds
from codistill.reporting.tables import spread_of

_SHOWN = 5


@dataclass(frozen=True)
class Change:
    """A class in all seeds of a setting.

    Attributes:
        name: name of the class.
        of_seeds: its changes, one for each seed that has images of it.
    """

    name: str
    of_seeds: Sequence[ClassChange]

    @property
    def mean(self) -> float:
        """Mean of the differences, in points."""
        return mean(c.difference for c in self.of_seeds)


def classes_that_change(measured: Measured) -> Section:
    """The most improved and the most hurt classes."""
    have, missing = measured.parts(lambda a: a.changes)
    of_settings = {s: _parts(s, changes) for s, changes in have.items()}
    return Section(
        "classes",
        "Which classes gain, which lose?",
        "The method's own classifier (fused, gated ...), or the ensemble if it has none, against "
        "the kept network: the classes with the largest gains and losses in test accuracy, in "
        "points. Each mark is a seed. Both are measured in the epoch of the kept network. The ends "
        "of a long list are always far out. Only classes with a finding (exact sign test, "
        "Holm-corrected for all classes of a run, p < 0.05) differ by more than chance.",
        folds(of_settings, len(measured.of) > 1),
        missing,
    )


def changes_over_seeds(of_seeds: Sequence[ClassChanges]) -> list[Change]:
    """Every class, the most improved first; ties in the order of the labels."""
    by_label: dict[int, list[ClassChange]] = {}
    for changes in of_seeds:
        for change in changes.classes:
            by_label.setdefault(change.label, []).append(change)
    every = [Change(c[0].name, c) for _, c in sorted(by_label.items())]
    return sorted(every, key=lambda change: -change.mean)


def _parts(setting: Setting, found: Sequence[ClassChanges]) -> list[Part]:
    changes = changes_over_seeds(found)
    up = [c for c in changes if c.mean > 0][:_SHOWN]
    down = [c for c in changes if c.mean < 0][-_SHOWN:]
    what = ", ".join(dict.fromkeys(f"{c.first} to {c.second}" for c in found))
    tests = "; ".join(
        f"{c.findings} (uncorrected {c.uncorrected}, by chance {c.by_chance:.1f})" for c in found
    )
    text = Paragraph(
        f"From {what}. Of {len(changes)} classes, findings in each seed: {tests}. All images: "
        f"{spread_of([c.overall.difference for c in found])} points, {setting.n}."
    )
    if not up + down:
        return [text, Paragraph("No class changes.")]
    return [text, Beside([_figure(setting, up, down)], _table(up + down))]


def _figure(setting: Setting, up: Sequence[Change], down: Sequence[Change]) -> Figure:
    shown = [*up, *down]
    with canvas(height=0.7 + 0.26 * len(shown)) as (figure, axes):
        for row, change in enumerate(shown):
            gains = change.mean > 0
            colour = COLOURS[0] if gains else COLOURS[1]
            axes.barh(
                -row, change.mean, color=colour, alpha=0.6, hatch="" if gains else "///", height=0.7
            )
            values = [c.difference for c in change.of_seeds]
            axes.plot(values, [-row] * len(values), "|", color="black", markersize=9)
        axes.axvline(0, color="black", linewidth=0.8)
        names = [c.name if len(c.name) < 24 else f"{c.name[:21]} ..." for c in shown]
        axes.set_yticks([-row for row in range(len(shown))], names)
        axes.set_xlabel("change in accuracy [points]")
        text = ", ".join(f"{c.name} {signed(c.mean, 1)}" for c in shown)
        title = f"{setting.number}: bars are means, marks are seeds"
        return Figure(title, image_of(figure), f"{text}.")


def _table(shown: Sequence[Change]) -> Table:
    rows = []
    for change in shown:
        c = change.of_seeds
        before, after = ([getattr(x, side) for x in c] for side in ("first", "second"))
        findings = sum(x.corrected < 0.05 for x in c)
        rows.append(
            [
                change.name,
                ", ".join(sorted({str(x.images) for x in c})),
                spread_of(before, 1),
                spread_of(after, 1),
                signed(change.mean, 1),
                ", ".join(f"+{x.gained} -{x.lost}" for x in c),
                f"{findings} of {len(c)}",
            ]
        )
    head = ("class", "images", "before %", "after %", "change", "images gained, lost", "findings")
    return Table("Most improved and most hurt classes", head, rows)
