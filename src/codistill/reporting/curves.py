"""curves.png: learning curves and loss terms of all settings in one picture."""

import io
from collections.abc import Sequence
from pathlib import Path

from codistill import files
from codistill.reporting.page.drawing import Style, band, canvas, integer_epochs, plain_ticks
from codistill.reporting.page.setting import Setting

_PANELS = {
    "test/top1/": ("Accuracy on the test set", "top-1 [%]"),
    "loss/": ("Loss terms on the training set", "mean of the epoch"),
}


def draw_curves(settings: Sequence[Setting], path: Path) -> None:
    """Draws test accuracy of every classifier and every loss term by epoch, as PNG.

    Lines are means over seeds; bands reach from the lowest seed to the highest.
    """
    curves = sum(len(s.keys("test/top1/")) for s in settings)
    height = max(4.8, 0.2 * curves)  # enough for the legend
    with canvas(width=12.0, height=height, columns=2) as (figure, both):
        for axes, (prefix, (title, unit)) in zip(both, _PANELS.items(), strict=True):
            named = [(s, key) for s in settings for key in s.keys(prefix)]
            for i, (s, key) in enumerate(named):
                label = f"{s.label}: {key.rpartition('/')[2]}"
                band(axes, s.curve(key), Style.number(i), label)
            integer_epochs(axes)
            axes.set(title=title, ylabel=unit)
            if named:
                axes.legend()
        both[1].set_yscale("log")
        plain_ticks(both[1].yaxis, between=False)
        seeds = sorted({len(s.results) for s in settings})
        figure.suptitle(f"mean and range over seeds, n = {', '.join(map(str, seeds))}")
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=120)
    files.write_bytes(path, picture.getvalue())
