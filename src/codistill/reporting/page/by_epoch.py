"""Figures of curves by epoch: one curve for each setting, or one for each part of a setting."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from codistill.reporting.page.drawing import (
    Style,
    band,
    canvas,
    image_of,
    integer_epochs,
    legend_below,
    name_at_end,
    plain_ticks,
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
        curves: the curve of each setting; one or more.
        axis: name and unit of the values.
        title: title of the figure.
        highest_first: order of the settings in the description, by the value after the last epoch.
            If the lowest come first, the axis begins at 0.
    """
    numbered = {str(s.number): columns for s, columns in curves.items()}
    with canvas() as (figure, axes):
        for s, columns in curves.items():
            band(axes, columns, s.style, s.label)
        integer_epochs(axes)
        axes.set_ylabel(axis)
        axes.set_ylim(bottom=None if highest_first else 0.0)
        name_at_end(axes, numbered)
        ends = [(mean(c[-1]), number) for number, c in numbered.items() if c[-1]]
        ranked = sorted(ends, key=lambda end: end[0], reverse=highest_first)
        said = ", ".join(f"{number}: {value:.4g}" for value, number in ranked)
        order = f"{'highest' if highest_first else 'lowest'} first, by number of the setting"
        text = f"{axis} by epoch. After the last one, {order}: {said}."
        return Figure(title, image_of(figure), text)


def parts_by_epoch(
    curves: Mapping[str, Columns],
    axis: str,
    title: str,
    *,
    bottom: float | None = None,
    of_all_sizes: bool = False,
) -> Figure:
    """One curve with its band for each part of a setting, such as a classifier, with a legend.

    Args:
        curves: the curve of each part, by its name.
        axis: name and unit of the values.
        title: title of the figure.
        bottom: lower end of the axis. Default: that of the values.
        of_all_sizes: whether values are of all sizes, so that the axis is logarithmic.
    """
    with canvas() as (figure, axes):
        for i, (name, columns) in enumerate(curves.items()):
            band(axes, columns, Style.number(i), name)
        integer_epochs(axes)
        axes.set_ylabel(axis)
        if bottom is not None:  # a limit ends autoscaling, which a logarithmic axis needs
            axes.set_ylim(bottom=bottom)
        if of_all_sizes:
            _logarithmic(axes, [x for c in curves.values() for column in c for x in column])
        legend_below(figure)
        last = ", ".join(f"{name} {mean(c[-1]):.4g}" for name, c in curves.items() if c[-1])
        text = f"{axis} by epoch. Mean after the last one: {last}."
        return Figure(title, image_of(figure), text)


def _logarithmic(axes: Any, values: Sequence[float]) -> None:
    """Makes the y axis logarithmic, as far as its values allow it."""
    low, high = min(values), max(values)
    if low > 0:
        axes.set_yscale("log")
    elif high > 0:
        axes.set_yscale("symlog", linthresh=1e-3 * high)
    plain_ticks(axes.yaxis, between=0 < high < 10 * low)
