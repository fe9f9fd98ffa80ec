"""Figures as SVG images: the same bytes from the same numbers, legible without colour."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any
from urllib.parse import quote

from codistill.importing import optional

# Okabe and Ito's colours, which the colour-blind can tell apart, without the yellow, which is too
# light for paper. Lines and markers differ too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p")
_FULL = ("kept", "mean peer", "mean of pairs", "same image")
FILLS = dict.fromkeys(_FULL, "full") | dict.fromkeys(("ensemble", "other images", "alone"), "none")
"""The filling of each thing's marker; "left" for classifiers that a method adds."""
_STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.35,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "text.parse_math": False,  # a name may hold a $
    "svg.fonttype": "none",  # letters stay letters, which is smaller than paths
    "svg.hashsalt": "codistill",
}
_FINE = re.compile(r"(\.\d\d)\d+")


@dataclass(frozen=True)
class Style:
    """Colour, line and marker of a curve. No two of 385 are alike."""

    colour: str
    line: Any
    marker: str

    @classmethod
    def number(cls, i: int) -> "Style":
        """The style of the i-th curve."""
        return cls(COLOURS[i % 7], LINES[i % 5], MARKERS[i % 11])


@contextmanager
def canvas(width: float = 4.0, height: float = 3.0, columns: int = 1) -> Iterator[tuple[Any, Any]]:
    """A figure of matplotlib and its axes, or an array of them if there are several columns.

    The user's own settings of matplotlib do not change it.

    Args:
        width: in inches.
        height: in inches.
        columns: number of axes beside one another.
    """
    optional("matplotlib", "drawing curves")
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context(["default", _STYLE]):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots(1, columns)


def image_of(figure: Any) -> str:
    """A figure as an SVG image: a data: URI to stand in a page."""
    file = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(file, format="svg", metadata=nothing, transparent=True)
    # Hundredths of a point are too small to see. Text stays as it is.
    svg = re.sub("<[^>]*>", lambda tag: _FINE.sub(r"\1", tag[0]), file.getvalue())
    return "data:image/svg+xml," + quote(svg[svg.index("<svg") :], safe=" /:=;,()'@!*+-.\n")


def band(axes: Any, columns: Sequence[Sequence[float]], style: Style, label: str) -> None:
    """A curve through the mean of each column, with the range of its values around it.

    The line goes on over columns without a value: epochs that were not evaluated.

    Args:
        axes: axes of matplotlib.
        columns: for each epoch, the values of the seeds.
        style: style of the curve.
        label: its name in the legend.
    """
    measured = [(epoch, column) for epoch, column in enumerate(columns, 1) if column]
    epochs = [epoch for epoch, _ in measured]
    axes.plot(
        epochs,
        [mean(column) for _, column in measured],
        color=style.colour,
        linestyle=style.line,
        marker=style.marker,
        markersize=3.5,
        markevery=max(1, len(measured) // 8),
        linewidth=1.4,
        label=label,
    )
    if any(len(c) > 1 for c in columns):
        low, high = ([f(column) for _, column in measured] for f in (min, max))
        axes.fill_between(epochs, low, high, color=style.colour, alpha=0.18, linewidth=0)


def legend_below(figure: Any) -> None:
    """A legend below the axes, where it covers no curve; figures of one curve have none."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if len(labels) > 1:
        columns = 1 if max(map(len, labels)) > 24 else 2
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def sd(values: Sequence[float]) -> float | None:
    """Standard deviation; None for one value."""
    return stdev(values) if len(values) > 1 else None


def point(
    axes: Any, place: tuple[float, float], style: Style, fill: str = "full", **error: float | None
) -> None:
    """A marker at (x, y), with `xerr` or `yerr` to each side."""
    axes.errorbar(
        *place,
        **error,
        marker=style.marker,
        color=style.colour,
        fillstyle=fill,
        markersize=6,
        capsize=2.5,
        linewidth=1.0,
    )


def name_points(axes: Any, names: Sequence[tuple[str, float, float]]) -> None:
    """Writes each name beside its point (name, x, y), where there is room."""
    axes.figure.draw_without_rendering()
    ordered = sorted(names, key=lambda n: (n[1], n[2], n[0]))
    pixels = axes.transData.transform([(x, y) for _, x, y in ordered])
    places = (pixels * 72 / axes.figure.dpi).tolist()
    taken = [(x - 3, y - 3, x + 3, y + 3) for x, y in places]  # left, bottom, right, top in points
    for (name, *xy), (x, y) in zip(ordered, places, strict=True):
        width = 5.9 * len(name)
        rights = [5 + 6 * i for i in range(12)]
        offsets = [(d, 0.0) for pair in ((r, -r - width) for r in rights) for d in pair]
        boxes = [(x + d, y - 3.5, x + d + width, y + 3.5) for d, _ in offsets]
        free = [i for i, box in enumerate(boxes) if not any(_overlap(box, t) for t in taken)]
        i = free[0] if free else 0
        taken.append(boxes[i])
        axes.annotate(
            name, xy=xy, xytext=offsets[i], textcoords="offset points", va="center", fontsize=9
        )


def _overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def name_at_end(axes: Any, curves: dict[str, Sequence[Sequence[float]]]) -> None:
    """Names at the right end of curves, moved apart where they would cover one another.

    Args:
        axes: axes of matplotlib, with all curves drawn and their limits final.
        curves: for each name, the columns that `band` drew.
    """
    last = {name: max(i for i, c in enumerate(cs) if c) for name, cs in curves.items() if any(cs)}
    ends = {name: mean(curves[name][i]) for name, i in last.items()}
    low, high = axes.get_ylim()
    step = (high - low) * 0.048
    places: list[float] = []
    ordered = sorted(ends.items(), key=lambda item: item[1])
    for i, (_, y) in enumerate(ordered):
        room = high - step * (len(ordered) - i - 0.5)
        places.append(min(max(y, places[-1] + step if places else low), max(room, low)))
    for (name, y), place in zip(ordered, places, strict=True):
        axes.annotate(
            name,
            xy=(1 + last[name], y),
            xytext=(1.045, (place - low) / (high - low)),
            textcoords="axes fraction",
            va="center",
            fontsize=9,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": "#777777", "linewidth": 0.5, "shrinkB": 1},
        )


def integer_epochs(axes: Any) -> None:
    """Makes the x axis one of whole epochs."""
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)


def plain_ticks(axis: Any, between: bool) -> None:
    """Writes the ticks of a logarithmic axis as numbers, also those between the powers if asked."""
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("{x:g}" if between else "")


def sample(style: Style) -> str:
    """A short piece of a curve, for the key: a data: URI of an image of 44 x 12 pixels."""
    with canvas(width=0.6, height=0.17) as (figure, axes):
        figure.set_layout_engine("none")
        axes.set_position((0, 0, 1, 1))
        axes.axis("off")
        axes.set(xlim=(0, 2), ylim=(-1, 1))
        axes.plot(
            [0, 1, 2],
            [0, 0, 0],
            color=style.colour,
            linestyle=style.line,
            marker=style.marker,
            markevery=[1],
            markersize=5.5,
            linewidth=1.6,
        )
        return image_of(figure)
