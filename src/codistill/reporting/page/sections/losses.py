"""The loss terms of each setting, the share of each in their sum, and the method's measures."""

from collections.abc import Sequence
from statistics import mean

from codistill.methods.minimize import MEASURE
from codistill.reporting.page.by_epoch import parts_by_epoch
from codistill.reporting.page.drawing import Style, canvas, image_of, integer_epochs, legend_below
from codistill.reporting.page.parts import Figure, Figures, Section
from codistill.reporting.page.setting import Setting, folds
from codistill.training.record import Record

_HATCHES = ("", "///", "...", "\\\\\\", "xxx", "ooo", "---")


def loss_terms(settings: Sequence[Setting]) -> Section:
    """Every loss term by epoch and its share; what a method measured beside its terms."""
    parts = {s: [Figures(_figures(s, keys))] for s in settings if (keys := s.keys("loss/"))}
    return Section(
        "losses",
        "Loss terms",
        "Each term as it was minimised, with its weight and ramp-up, as the mean over the training "
        "steps of an epoch. The share is that of the sum of all absolute values. A method that "
        "minimises its terms in turns (AFD's discriminators “d”, and “g”, which deceives them) has "
        "no single total, and a large term need not have a large gradient. Terms of different "
        "methods are not on one scale: compare shapes, not heights. What a method measures in its "
        "training steps has a figure of its own and no share. AFD's “dK_real” and “dK_fake” are "
        "the shares in % of real and of fake maps that discriminator K recognises. If the two add "
        "up to about 100 in every epoch, it tells nothing apart, and its game is dead.",
        folds(parts, len(settings) > 1),
        [] if parts else ["The runs recorded no loss terms."],
    )


def _figures(setting: Setting, keys: Sequence[str]) -> list[Figure]:
    figures = [_terms(setting, keys), _shares(setting, keys)]
    measured = setting.keys(MEASURE)
    return [*figures, _measured(setting, measured)] if measured else figures


def _terms(setting: Setting, keys: Sequence[str]) -> Figure:
    curves = {key.removeprefix("loss/"): setting.curve(key) for key in keys}
    title = f"{setting.number}: terms, {setting.n}"
    return parts_by_epoch(curves, "loss", title, of_all_sizes=True)


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
        legend_below(figure)
        last = ", ".join(f"{name} {heights[-1]:.1f} %" for name, heights in shares.items())
        text = f"Share of each term by epoch. In the last epoch: {last}."
        title = f"{setting.number}: shares, mean over {setting.n}"
        return Figure(title, image_of(figure), text)


def _measured(setting: Setting, keys: Sequence[str]) -> Figure:
    curves = {key.removeprefix(MEASURE): setting.curve(key) for key in keys}
    title = f"{setting.number}: measured in training steps, {setting.n}"
    return parts_by_epoch(curves, "measured, in its own unit", title)
