"""The loss terms of each setting, the share that each has in their sum, and what was measured."""

from collections.abc import Sequence
from statistics import mean

from codistill.methods.method import MEASURE
from codistill.reporting.page.drawing import (
    Style,
    band,
    canvas,
    image_of,
    integer_epochs,
    plain_ticks,
)
from codistill.reporting.page.parts import Figure, Figures, Fold, Section
from codistill.reporting.page.setting import Setting
from codistill.training.record import Record

_HATCHES = ("", "///", "...", "\\\\\\", "xxx", "ooo", "---")


def loss_terms(settings: Sequence[Setting]) -> Section:
    """Every loss term by epoch and its share; what a method measured beside its terms."""
    folds = [
        Fold(s.title, [Figures(_figures(s, keys))], open=len(settings) <= 3)
        for s in settings
        if (keys := s.keys("loss/"))
    ]
    return Section(
        "losses",
        "Loss terms",
        "Each term as it was minimised, its weight and ramp-up counted in, as mean of an epoch's "
        "training steps. The share is that in the sum of the terms' absolute values: a method that "
        "minimises its terms in turns (AFD's discriminators, “d”, and what deceives them, “g”) "
        "has no single total, and a term that is large need not have a large gradient. Terms of "
        "different methods are not on one scale; compare shapes, not heights. What a method "
        "measures in its training steps stands in a figure of its own and has no share. AFD's "
        "“dK_real” and “dK_fake” are the shares in % of the real maps and of the fake ones that "
        "discriminator K tells right. Where the two add up to about 100 in every epoch, it tells "
        "nothing apart, and its game is dead.",
        folds,
        [] if folds else ["The runs recorded no loss terms."],
    )


def _figures(setting: Setting, keys: Sequence[str]) -> list[Figure]:
    figures = [_terms(setting, keys), _shares(setting, keys)]
    measured = setting.keys(MEASURE)
    return [*figures, _measured(setting, measured)] if measured else figures


def _terms(setting: Setting, keys: Sequence[str]) -> Figure:
    lowest = []
    with canvas() as (figure, axes):
        for i, key in enumerate(keys):
            columns = setting.curve(key)
            band(axes, columns, Style.number(i), key.removeprefix("loss/"))
            lowest += [x for column in columns for x in column]
        integer_epochs(axes)
        axes.set_ylabel("loss")
        if min(lowest) > 0:
            axes.set_yscale("log")
        elif max(lowest) > 0:
            axes.set_yscale("symlog", linthresh=1e-3 * max(lowest))
        plain_ticks(axes.yaxis, between=0 < max(lowest) < 10 * min(lowest))
        axes.legend(ncols=1 + (len(keys) > 4))
        image = image_of(figure)
    last = [f"{k.removeprefix('loss/')} {_mean(setting.curve(k)[-1])}" for k in keys]
    text = f"Each loss term by epoch. In the last epoch: {', '.join(last)}."
    return Figure(f"{setting.label}: terms, {setting.n}", image, text)


def _shares(setting: Setting, keys: Sequence[str]) -> Figure:
    def share(key: str) -> list[float]:
        def value(record: Record) -> float:
            total = sum(abs(record.get(k, 0.0)) for k in keys)
            return 100 * abs(record.get(key, 0.0)) / total if total else 0.0

        return [mean(column) for column in setting.columns(value)]

    shares = {key.removeprefix("loss/"): share(key) for key in keys}
    with canvas() as (figure, axes):
        epochs = range(1, len(next(iter(shares.values()))) + 1)
        below = [0.0] * len(epochs)
        for i, (name, heights) in enumerate(shares.items()):
            axes.bar(
                epochs,
                heights,
                bottom=below,
                width=1.0,
                label=name,
                color=Style.number(i).colour,
                hatch=_HATCHES[i % len(_HATCHES)],
                edgecolor="white",
                linewidth=0.2,
            )
            below = [a + b for a, b in zip(below, heights, strict=True)]
        integer_epochs(axes)
        axes.grid(visible=False)
        axes.set(ylabel="share [%]", ylim=(0, 100), xlim=(0.5, len(epochs) + 0.5))
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
        image = image_of(figure)
    last = ", ".join(f"{name} {heights[-1]:.1f} %" for name, heights in shares.items())
    text = f"Share of each term by epoch. In the last epoch: {last}."
    return Figure(f"{setting.label}: shares, mean over {setting.n}", image, text)


def _measured(setting: Setting, keys: Sequence[str]) -> Figure:
    with canvas() as (figure, axes):
        for i, key in enumerate(keys):
            band(axes, setting.curve(key), Style.number(i), key.removeprefix(MEASURE))
        integer_epochs(axes)
        axes.set_ylabel("measured, in its own unit")
        axes.legend(ncols=1 + (len(keys) > 4))
        image = image_of(figure)
    last = [f"{k.removeprefix(MEASURE)} {_mean(setting.curve(k)[-1])}" for k in keys]
    text = f"What the method measured, by epoch. In the last epoch: {', '.join(last)}."
    return Figure(f"{setting.label}: measured in training steps, {setting.n}", image, text)


def _mean(values: Sequence[float]) -> str:
    return f"{mean(values):.4g}" if values else "none"
