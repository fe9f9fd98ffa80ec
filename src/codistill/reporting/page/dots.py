"""A figure with a row for each setting, narrow enough for a phone."""

from collections.abc import Mapping, Sequence
from statistics import mean

from codistill.reporting.page.drawing import FILLS, canvas, image_of, point, sd
from codistill.reporting.page.parts import Figure
from codistill.reporting.page.setting import Setting

Dots = Mapping[Setting, Mapping[str, Sequence[float]]]
"""The values of the seeds, for each setting and each kind of thing, such as "ensemble"."""


def dots(values: Dots, axis: str, title: str, digits: int = 2) -> Figure:
    """A row for each setting, with a marker for each thing, filled by `FILLS`.

    Args:
        values: values of the seeds.
        axis: name and unit of the values.
        title: title of the figure.
        digits: decimals in the figure's description.
    """
    said = []
    rows = {s: i for i, s in enumerate(values)}
    with canvas(height=0.6 + 0.45 * len(rows)) as (figure, axes):
        for s, things in values.items():
            for i, (what, of_seeds) in enumerate(things.items()):
                if of_seeds:
                    place = mean(of_seeds), -rows[s] - 0.15 * i
                    point(axes, place, s.style, FILLS.get(what, "left"), xerr=sd(of_seeds))
                    said.append(f"{s.number} {what} {mean(of_seeds):.{digits}f}")
            axes.annotate(
                s.title if len(s.title) < 46 else f"{s.title[:43]} ...",
                (0.01, 0.13 - rows[s]),
                xycoords=("axes fraction", "data"),
                fontsize=8.5,
                va="bottom",
            )
        axes.set_yticks([-row for row in rows.values()], [""] * len(rows))
        axes.tick_params(axis="y", length=0)
        axes.locator_params(axis="x", nbins=5)
        axes.set(xlabel=axis, ylim=(-len(rows) + 0.45, 0.65))
        text = f"{axis} by number of the setting: {', '.join(said)}."
        return Figure(title, image_of(figure), text)
