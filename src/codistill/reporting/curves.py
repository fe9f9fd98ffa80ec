"""Learning curves of runs side by side, as a picture."""

import io
from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from statistics import mean
from typing import Any

from codistill import files
from codistill.importing import optional
from codistill.training.record import Record

_TEST, _LOSS = "test/top1/", "loss/"


def draw_curves(settings: Mapping[str, Sequence[Sequence[Record]]], path: Path) -> None:
    """Test accuracy of every classifier and every loss term by epoch: mean and range over seeds.

    Args:
        settings: for each setting, by its label, the history of every seed.
        path: of the picture, PNG.
    """
    optional("matplotlib", "drawing curves")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    curves = sum(
        key.startswith(_TEST) for histories in settings.values() for key in histories[0][0]
    )
    figure = Figure(figsize=(12, max(4.8, 0.2 * curves)), layout="constrained")  # for the legend
    FigureCanvasAgg(figure)
    accuracy, loss = figure.subplots(1, 2)
    styles = ["-", "--", ":", "-."]
    for g, (label, histories) in enumerate(settings.items()):
        keys = histories[0][0]
        test = [k for k in keys if k.startswith(_TEST)]
        terms = [k for k in keys if k.startswith(_LOSS)]
        for axes, chosen in ((accuracy, test), (loss, terms)):
            for i, key in enumerate(chosen):
                name = f"{label}: {key.rpartition('/')[2]}"
                _band(axes, histories, key, name, _COLOURS[(i + 4 * g) % 8], styles[g % 4])
    for axes in (accuracy, loss):
        axes.xaxis.get_major_locator().set_params(integer=True)
    accuracy.set(title="Accuracy on the test set", xlabel="epoch", ylabel="top-1 [%]")
    loss.set(title="Loss terms on the training set", xlabel="epoch", ylabel="mean of the epoch")
    loss.set_yscale("log")
    seeds = {len(histories) for histories in settings.values()}
    figure.suptitle(f"mean and range over seeds, n = {', '.join(map(str, sorted(seeds)))}")
    for axes in (accuracy, loss):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    files.write_bytes(path, picture.getvalue())


# Okabe and Ito's colours, which the colour-blind can tell apart.
_COLOURS = [
    f"#{code}"
    for code in ("0072B2", "E69F00", "009E73", "D55E00", "CC79A7", "56B4E9", "000000", "F0E442")
]


def _band(
    axes: Any, histories: Sequence[Sequence[Record]], key: str, name: str, colour: str, style: str
) -> None:
    length = min(map(len, histories))
    epochs = range(1, length + 1)
    curves = [[record.get(key, nan) for record in history[:length]] for history in histories]
    columns = list(zip(*curves, strict=True))
    axes.plot(epochs, [mean(c) for c in columns], style, color=colour, label=name, linewidth=1.5)
    low, high = [min(c) for c in columns], [max(c) for c in columns]
    axes.fill_between(epochs, low, high, color=colour, alpha=0.15, linewidth=0)
