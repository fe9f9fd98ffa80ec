"""One curve with its band for each setting, by epoch, in one figure."""

from collections.abc import Mapping, Sequence
from statistics import mean

from codistill.reporting.page.drawing import band, canvas, integer_epochs, name_at_end, svg_of
from codistill.reporting.page.setting import Setting


def bands_of_settings(
    curves: Mapping[Setting, Sequence[Sequence[float]]],
    axis: str,
    name: str,
    bottom: float | None = None,
) -> tuple[str, dict[str, float]]:
    """The SVG, and by number of the setting its mean over seeds after the last epoch.

    Args:
        curves: of each setting the values of all seeds, epoch by epoch.
        axis: what the values are.
        name: of the figure on the page.
        bottom: where the axis begins. Default: where the values do.
    """
    numbered = {str(s.number): columns for s, columns in curves.items()}
    with canvas() as (figure, axes):
        for s, columns in curves.items():
            band(axes, columns, s.style, s.label)
        integer_epochs(axes)
        axes.set_ylabel(axis)
        axes.set_ylim(bottom=bottom)
        name_at_end(axes, numbered)
        svg = svg_of(figure, name)
    return svg, {number: mean(c[-1]) for number, c in numbered.items() if c[-1]}
