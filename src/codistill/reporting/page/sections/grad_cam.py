"""Grad-CAM of the same images in all settings, side by side."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from codistill.analysis import Analysis, HeatMap, Missing, Picture
from codistill.importing import optional
from codistill.reporting.page.measure import Measured
from codistill.reporting.page.parts import Fold, Panel, Panels, Part, Section
from codistill.reporting.page.setting import Setting

_SIDE = 96  # pixels of a panel


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
    parts += [Fold(s.title, [_panels(s, a)], open=len(have) <= 3) for s, (a,) in have.items()]
    return Section(
        "looks",
        "Where do they look?",
        "Grad-CAM: the places of the last feature map that speak for a classifier's first guess "
        "are clear; the rest fades into grey. The ensemble and a fused classifier read the maps of "
        "all peers. Each setting shows its first seed, and settings with the same test images show "
        "the same images. Without --images, these are images that only one of two classifiers of "
        "the first such setting is right about. They are not a fair sample.",
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
        head.append(f"{s.title}: {wanted[0]}")
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
    return Panels(f"{setting.label}, seed {seed}", ("image", *classifiers), _rows(analysis))


def _row(picture: Picture, classes: Sequence[str]) -> list[Panel]:
    label = classes[picture.label]
    cells = [Panel(_data_uri(picture.image, None), label, f"image {picture.index}: {label}")]
    for heat_map in picture.heat_maps:
        guess = classes[heat_map.guess]
        right = "right" if heat_map.guess == picture.label else "wrong"
        text = f"{guess} {heat_map.probability:.0%}, {right}"
        text += "; no place speaks for it" if heat_map.blank else ""
        cells.append(
            Panel(_data_uri(picture.image, heat_map), f"{heat_map.classifier}: {text}", text)
        )
    return cells


def _data_uri(image: UInt8[np.ndarray, "H W 3"], heat_map: HeatMap | None) -> str:
    """A picture as JPEG; grey where a classifier does not look."""
    pil = _pillow()
    pixels = pil.fromarray(image).resize((_SIDE, _SIDE), pil.Resampling.BICUBIC)
    if heat_map is not None:
        heat = pil.fromarray(np.round(255 * heat_map.heat).astype(np.uint8))
        light = np.asarray(heat.resize((_SIDE, _SIDE), pil.Resampling.BICUBIC)) / 255
        faded = 128 + (np.asarray(pixels) - 128.0) * (0.1 + 0.9 * light[..., None])
        pixels = pil.fromarray(np.round(faded).astype(np.uint8))
    file = io.BytesIO()
    pixels.save(file, format="JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _pillow() -> Any:
    return optional("PIL.Image", "showing images")
