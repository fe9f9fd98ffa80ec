"""What helped and what hurt: differences of a comparison to the networks alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from codistill.analysis.differences import Difference, concluded_from
from codistill.messages import signed
from codistill.reporting.difference_tables import CAPTION, NAMES, difference_table
from codistill.reporting.page.drawing import COLOURS, canvas, image_of
from codistill.reporting.page.parts import Answer, Beside, Figure, Figures, Fold, Section, Table
from codistill.reporting.page.setting import Setting, one_line
from codistill.runs.results import Epoch


@dataclass(frozen=True)
class Compared:
    """What a comparison found beside the networks alone.

    Attributes:
        differences: all differences.
        baselines: for each label, that of the networks alone.
        in_short: the `conclusion`.
    """

    differences: Sequence[Difference]
    baselines: Mapping[str, str]
    in_short: str

    @property
    def answer(self) -> Answer:
        """The conclusion, for the top of the page."""
        shown = {d.verdict for d in concluded_from(self.differences)} & {"helped", "hurt"}
        if len(shown) != 1:
            return Answer(self.in_short, "open")
        return Answer(self.in_short, "helped" if "helped" in shown else "hurt")


def what_helped(found: Sequence[Difference], settings: Sequence[Setting]) -> Section:
    """The paired differences as a figure and as the table of differences.md."""
    last, *others = _tables(found, settings)
    kinds = {
        "The student minus the same network alone": ("student",),
        "Mean of the peers minus that of the networks alone": ("mean peer",),
        "Ensemble and what the method adds, minus its opponent": ("ensemble", "its own"),
    }
    figures = [
        _figure(title, [d for d in found if d.epoch == "last" and d.kind in kind])
        for title, kind in kinds.items()
        if any(d.epoch == "last" and d.kind in kind for d in found)
    ]
    few = len(last.rows) <= 12
    return Section(
        "versus",
        "What helped, what hurt",
        "Test top-1 of each run minus that of the networks trained alone with the same seed, in "
        "points. The bar is the 95 % confidence interval of the mean. If it contains 0, these "
        "seeds do not show whether the method helped or hurt. That is no proof that it did "
        "neither.",
        [
            *([Beside(figures, last)] if few else [Figures(figures), Fold(last.caption, [last])]),
            *(Fold(table.caption, [table]) for table in others),
        ],
    )


def _tables(found: Sequence[Difference], settings: Sequence[Setting]) -> list[Table]:
    """The table of differences.md, some of its columns at a time, with the verdict in front."""
    numbers = {s.label: s.head for s in settings}
    titles: dict[Epoch, str] = {
        "last": "after the last epoch",
        "last_five": "over the last five epochs",
        "best_by_validation": "in the epoch by validation",
    }
    whole, rows = difference_table(found)
    tables = []
    for row in rows:
        row[0] = numbers.get(one_line(row[0]), row[0])
    for epoch, title in titles.items():
        prefix = f"{NAMES[epoch]}: "
        columns = [i for i, c in enumerate(whole) if ":" not in c or c.startswith(prefix)]
        if not whole[columns[-1]].startswith(prefix):
            continue
        columns.insert(2, columns.pop())
        head = ["#", *(whole[i].removeprefix(prefix) for i in columns[1:])]
        cells = [[row[i] for i in columns] for row in rows]
        caption = f"Differences to the networks alone {title}"
        tables.append(Table(caption, head, cells, CAPTION, headers=2))
    return tables


def _figure(title: str, shown: Sequence[Difference]) -> Figure:
    said, ticks, row = [], [], 0.0
    with canvas(height=0.8 + 0.3 * (len(shown) + len({d.label for d in shown}))) as (figure, axes):
        for label, of_label in groupby(shown, key=lambda d: d.label):
            axes.annotate(
                label if len(label) < 46 else f"{label[:43]} ...",
                (0.01, row),
                xycoords=("axes fraction", "data"),
                fontsize=8.5,
                va="center",
            )
            row -= 1
            for d in of_label:
                s = d.statistics
                low, high = s.interval or (s.mean, s.mean)
                decided = d.verdict in ("helped", "hurt")
                colour = COLOURS[0] if s.mean > 0 else COLOURS[1]
                axes.errorbar(
                    s.mean,
                    row,
                    xerr=[[s.mean - low], [high - s.mean]] if s.interval else None,
                    marker="o" if s.mean > 0 else "s",
                    fillstyle="full" if decided else "none",
                    color=colour,
                    capsize=2.5,
                )
                ticks.append((row, d.classifier))
                said.append(f"{label}, {d.classifier}: {signed(s.mean, 2)}, {d.verdict}")
                row -= 1
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_yticks([y for y, _ in ticks], [text for _, text in ticks])
        axes.set(xlabel="difference in test top-1 [points], last epoch", ylim=(row + 0.4, 0.6))
        title += ". Filled: helped or hurt (corrected p < 0.05); hollow: undecided or not tested"
        return Figure(title, image_of(figure), f"Differences: {'; '.join(said)}.")
