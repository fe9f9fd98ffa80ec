"""Learning curves: every classifier of every setting, and the settings together."""

from collections.abc import Iterator, Sequence

from codistill.reporting.page.by_epoch import bands_of_settings
from codistill.reporting.page.drawing import Style, band, canvas, integer_epochs, svg_of
from codistill.reporting.page.parts import Figure, Figures, Fold, Part, Section
from codistill.reporting.page.setting import Setting, key_of, named

_SPLITS = {"test": "test images", "val": "held-out images (val)"}
_OPEN = 3  # settings whose own figures are shown without asking


def learning_curves(settings: Sequence[Setting]) -> Section:
    """Accuracy by epoch."""
    parts: list[Part] = []
    if len(settings) > 1:
        together = [
            _overview(settings, what, "test") for what in ("mean peer", "ensemble", "its own")
        ]
        parts += [Figures([f for f in together if f]), key_of(settings, "curves-key")]
    parts += [
        Fold(s.title, [Figures(list(_figures(s)))], open=len(settings) <= _OPEN) for s in settings
    ]
    none = [s for s in settings if not s.keys("val/top1/")]
    missing = [f"No images were held out: {named(none, settings)}."] if none else []
    return Section(
        "curves",
        "Learning curves",
        "Each line is the mean over seeds of one classifier's top-1 accuracy, the band around it "
        "reaches from the worst to the best seed; one seed has no band. Test images are only "
        "looked at, never used to choose; “held-out” images choose the epoch that is kept.",
        parts,
        missing,
    )


def _overview(settings: Sequence[Setting], what: str, split: str) -> Figure | None:
    """One kind of classifier of all settings."""
    curves = {s: columns for s in settings if any(columns := _of_kind(s, what, split))}
    if not curves:
        return None
    svg, ends = bands_of_settings(curves, f"{split} top-1 [%]", f"curves-{what.replace(' ', '-')}")
    ranked = sorted(ends.items(), key=lambda item: -item[1])
    text = ", ".join(f"{number}: {y:.2f}" for number, y in ranked)
    return Figure(
        f"{_NAMES[what]}, {_SPLITS[split]}",
        svg,
        f"Accuracy by epoch. After the last epoch, best first, by number of the setting: {text}.",
    )


_NAMES = {
    "mean peer": "Mean of the peers",
    "ensemble": "Ensemble of the peers",
    "its own": "The method's own classifier (fused, gated ...)",
}


def _of_kind(setting: Setting, what: str, split: str) -> list[list[float]]:
    prefix = f"{split}/top1/"
    if what == "mean peer":
        return setting.mean_peer(prefix)
    if what == "ensemble":
        return setting.curve(f"{prefix}ensemble")
    own = setting.own_classifier
    return setting.curve(prefix + own) if own else []


def _figures(setting: Setting) -> Iterator[Figure]:
    for split, images in _SPLITS.items():
        keys = setting.keys(f"{split}/top1/")
        if not keys:
            continue
        last = []
        with canvas() as (figure, axes):
            for i, key in enumerate(keys):
                name, columns = key.rpartition("/")[2], setting.curve(key)
                band(axes, columns, Style.number(i), name)
                if columns[-1]:
                    last.append(f"{name} {sum(columns[-1]) / len(columns[-1]):.2f}")
            integer_epochs(axes)
            axes.set_ylabel(f"{split} top-1 [%]")
            axes.legend(loc="lower right", ncols=1 + (len(keys) > 6))
            svg = svg_of(figure, f"curves-{setting.name}-{split}")
        yield Figure(
            f"{setting.label}: {images}, {setting.n}",
            svg,
            f"Accuracy by epoch of every classifier. Mean after the last: {', '.join(last)}.",
        )
