"""Figures of curves by epoch: one curve for each setting, or one for each part of a setting."""

from collections.abc import Mapping, Sequence
from statistics import mean

from codistill.reporting.page.drawing import (
    Style,
    band,
    canvas,
    image_of,
    integer_epochs,
    name_at_end,
)
from codistill.reporting.page.parts import Figure
from codistill.reporting.page.setting import Setting

Columns = Sequence[Sequence[float]]
"""For each epoch, the values of the seeds."""


def settings_by_epoch(
    curves: Mapping[Setting, Columns], axis: str, title: str, *, highest_first: bool
) -> Figure:
    """One curve with its band for each setting.

    Args:
        curves: of each setting; one or more.
        axis: name and unit of the values.
        title: of the figure.
        highest_first: order of the settings in the description, by the value after the last epoch.
            The axis begins at 0 where low values come first.
    """
    numbered = {str(s.number): columns for s, columns in curves.items()}
    with canvas() as (figure, axes):
        for s, columns in curves.items():
            band(axes, columns, s.style, s.label)
        integer_epochs(axes)
        axes.set_ylabel(axis)
        axes.set_ylim(bottom=None if highest_first else 0.0)
        name_at_end(axes, numbered)
        image = image_of(figure)
    ends = [(mean(c[-1]), number) for number, c in numbered.items() if c[-1]]
    ranked = sorted(ends, key=lambda end: end[0], reverse=highest_first)
    text = ", ".join(f"{number}: {value:.4g}" for value, number in ranked)
    order = "highest" if highest_first else "lowest"
    text = f"{axis} by epoch. After the last one, {order} first, by number of the setting: {text}."
    return Figure(title, image, text)


def parts_by_epoch(
    curves: Mapping[str, Columns], axis: str, title: str, bottom: float | None = None
) -> Figure:
    """One curve with its band for each part of a setting, such as a classifier, with a legend.

    Args:
        curves: of each part, by its name.
        axis: name and unit of the values.
        title: of the figure.
        bottom: where the axis begins. Default: where the values do.
    """
    with canvas() as (figure, axes):
        for i, (name, columns) in enumerate(curves.items()):
            band(axes, columns, Style.number(i), name)
        integer_epochs(axes)
        axes.set_ylabel(axis)
        axes.set_ylim(bottom=bottom)
        axes.legend(ncols=1 + (len(curves) > 4))
        image = image_of(figure)
    last = ", ".join(f"{name} {mean(c[-1]):.4g}" for name, c in curves.items() if c[-1])
    return Figure(title, image, f"{axis} by epoch. Mean after the last: {last}.")
