"""Grad-CAM of the same images in all settings, side by side."""

from collections.abc import Sequence
from typing import Literal

from codistill.analysis import Analysis, Missing, Picture
from codistill.reporting.page.measure import Measured
from codistill.reporting.page.parts import Panel, Panels, Part, Section
from codistill.reporting.page.photographs import photograph
from codistill.reporting.page.setting import Setting, folds


def where_they_look(measured: Measured) -> Section:
    """Panels of Grad-CAM for every setting."""
    first = Measured({s: analyses[:1] for s, analyses in measured.of.items()}, measured.refused)
    have, missing = first.parts(lambda a: a.pictures if isinstance(a.pictures, Missing) else a)
    alike = _of_the_same_images(have)
    parts: list[Part] = [_side_by_side(some) for some in alike if len(some) > 1]
    single = [next(iter(some)).title for some in alike if len(some) == 1]
    if len(have) > 1 and single:
        missing.append(
            f"No other setting shows the same images, so these stand alone: {'; '.join(single)}."
        )
    several = len(measured.of) > 1
    parts += folds({s: [_panels(s, a)] for s, (a,) in have.items()}, several)
    return Section(
        "looks",
        "Where do they look?",
        "Grad-CAM: the places of the last feature map that speak for a classifier's first guess "
        "glow. A green edge is a right guess, a dashed red one a wrong guess. The ensemble and a "
        "fused classifier read the maps of all peers. Each setting shows its first seed, and "
        "settings with the same test images show the same images. Without --images, these are "
        "images that only one of two classifiers of the first such setting is right about. They "
        "are not a fair sample.",
        parts,
        [*measured.outside, *missing],
    )


def _of_the_same_images(have: dict[Setting, list[Analysis]]) -> list[dict[Setting, Analysis]]:
    """The settings, those together whose pictures show the same images."""
    found: list[dict[Setting, Analysis]] = []
    for s, (a,) in have.items():
        for some in found:
            other, b = next(iter(some.items()))
            same = other.results[0].test_images == s.results[0].test_images
            if same and list(map(_key, _of(a))) == list(map(_key, _of(b))):
                some[s] = a
                break
        else:
            found.append({s: a})
    return found


def _key(picture: Picture) -> tuple[int, int, tuple[int, ...], bytes]:
    return picture.index, picture.label, picture.image.shape, picture.image.tobytes()


def _side_by_side(shown: dict[Setting, Analysis]) -> Panels:
    """One classifier of each setting: the method's own, else the ensemble, else the first."""
    columns, head = [], ["image"]
    for s, a in shown.items():
        classifiers = [h.classifier for h in _of(a)[0].heat_maps]
        wanted = [name for name in (a.own, "ensemble", *classifiers) if name in classifiers]
        head.append(f"{s.number}: {wanted[0]}")
        columns.append([row[1 + classifiers.index(wanted[0])] for row in _rows(a)])
    first = [row[0] for row in _rows(next(iter(shown.values())))]
    rows = list(zip(first, *columns, strict=True))
    which = f"Settings {', '.join(str(s.number) for s in shown)} side by side"
    return Panels(f"{which}: what the method adds, else the ensemble", head, rows)


def _of(analysis: Analysis) -> tuple[Picture, ...]:
    assert isinstance(analysis.pictures, tuple)
    return analysis.pictures


def _rows(analysis: Analysis) -> list[list[Panel]]:
    return [_row(picture, analysis.classes) for picture in _of(analysis)]


def _panels(setting: Setting, analysis: Analysis) -> Panels:
    classifiers = [h.classifier for h in _of(analysis)[0].heat_maps]
    seed = setting.results[0].config.seed
    head = ("image", *map(setting.called, classifiers))
    return Panels(f"What each classifier looks at, seed {seed}", head, _rows(analysis))


def _row(picture: Picture, classes: Sequence[str]) -> list[Panel]:
    label = classes[picture.label]
    cells = [Panel(photograph(picture.image, None), label, f"image {picture.index}: {label}")]
    for heat_map in picture.heat_maps:
        guess = classes[heat_map.guess]
        right: Literal["right", "wrong"] = "right" if heat_map.guess == picture.label else "wrong"
        text = f"{guess} {heat_map.probability:.0%}, {right}"
        text += "; no place speaks for it" if heat_map.blank else ""
        uri = photograph(picture.image, heat_map.heat)
        cells.append(Panel(uri, f"{heat_map.classifier}: {text}", text, right))
    return cells
