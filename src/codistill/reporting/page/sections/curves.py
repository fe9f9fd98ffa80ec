"""Learning curves: every classifier of every setting, and the settings together."""

from collections.abc import Iterator, Sequence

from codistill.reporting.page.by_epoch import parts_by_epoch, settings_by_epoch
from codistill.reporting.page.parts import Figure, Figures, Part, Section
from codistill.reporting.page.setting import Setting, folds, key_of, named

_SPLITS = {"test": "test images", "val": "held-out images (val)"}
_KINDS = {
    "mean peer": "Mean of the peers",
    "ensemble": "Ensemble of the peers",
    "its own": "The method's own classifier (fused, gated ...)",
}


def learning_curves(settings: Sequence[Setting]) -> Section:
    """Accuracy by epoch."""
    parts: list[Part] = []
    if len(settings) > 1:
        parts += [Figures([*_settings_together(settings)]), key_of(settings)]
    parts += folds({s: [Figures([*_figures(s)])] for s in settings}, len(settings) > 1)
    none = [s for s in settings if not s.keys("val/top1/")]
    missing = [f"No images were held out: {named(none, settings)}."] if none else []
    return Section(
        "curves",
        "Learning curves",
        "Each line is the mean over seeds of one classifier's top-1 accuracy. The band around it "
        "reaches from the worst seed to the best; a single seed has no band. Test images are only "
        "measured, never used to choose. The held-out images choose the epoch that is kept.",
        parts,
        missing,
    )


def _settings_together(settings: Sequence[Setting]) -> Iterator[Figure]:
    for kind, title in _KINDS.items():
        curves = {s: columns for s in settings if any(columns := _test_curve(s, kind))}
        if curves:
            title = f"{title}, test images"
            yield settings_by_epoch(curves, "test top-1 [%]", title, highest_first=True)


def _test_curve(setting: Setting, kind: str) -> list[list[float]]:
    if kind == "mean peer":
        return setting.mean_peer("test/top1/")
    classifier = "ensemble" if kind == "ensemble" else setting.own_classifier
    return setting.curve(f"test/top1/{classifier}") if classifier else []


def _figures(setting: Setting) -> Iterator[Figure]:
    for split, images in _SPLITS.items():
        keys = setting.keys(f"{split}/top1/")
        if keys:
            curves = {setting.called(key.rpartition("/")[2]): setting.curve(key) for key in keys}
            title = f"{setting.number}: {images}, {setting.n}"
            yield parts_by_epoch(curves, f"{split} top-1 [%]", title)
