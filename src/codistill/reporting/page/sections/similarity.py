"""Similarity of the peers' feature maps, methods side by side."""

from collections.abc import Iterator
from statistics import mean

from codistill.analysis import MapSimilarity, Similarities
from codistill.reporting.page.dots import dots
from codistill.reporting.page.measure import Measured
from codistill.reporting.page.parts import Beside, Figure, Fold, Paragraph, Part, Section, Table
from codistill.reporting.page.setting import Setting
from codistill.reporting.tables import spread_of

_NONE = (
    "“-”: one seed or more has no such number. Maps of different shapes have no cosine, and it is "
    "measured of the last maps only. A map that is the same for all images (a dead peer) has no "
    "CKA."
)
Have = dict[Setting, list[Similarities]]
"""The similarities of each setting, one for each seed."""


def likeness_of_maps(measured: Measured) -> Section:
    """CKA and cosine of the peers' feature maps."""
    have, missing = measured.parts(lambda a: a.similarity)
    parts: list[Part] = []
    if have:
        figures = list(_figures(have)) if len(have) > 1 else []
        parts.append(Beside(figures, _last_stages(have)))
        every = _every_pair(have)
        parts.append(Fold(every.caption, [every, *_notes(have)]))
    seen = [s for similarities in have.values() for s in similarities]
    images = sorted({f"{s.images:,} of {s.available:,}" for s in seen})
    return Section(
        "alike",
        "Are the peers alike inside?",
        "Linear CKA compares the feature maps of two peers over the same images. It is 1 if a "
        "rotation and a scale make them equal, and about 0 if they are unrelated. Cosine compares "
        "the maps number by number, so it is high only if the channels mean the same. The cosine "
        "between maps of different images shows what it would be if the maps said nothing about "
        "the image. Peers that share a trunk are alike to begin with, so compare methods with "
        f"equal trunks. Measured on test images ({', '.join(images) or 'none'}) after the last "
        "epoch.",
        parts,
        missing,
    )


def _notes(have: Have) -> Iterator[Paragraph]:
    notes: dict[str, list[Setting]] = {}
    for s, similarities in have.items():
        for note in dict.fromkeys(note for found in similarities for note in found.notes):
            notes.setdefault(note, []).append(s)
    for note, of in notes.items():
        yield Paragraph(f"{'; '.join(s.title for s in of)}: {note}.")


def _means(have: Have, name: str) -> dict[Setting, list[float]]:
    """For each setting and seed the mean over pairs, of the maps that the heads read.

    Empty for a setting in which a pair of a seed has no such number.
    """
    found = {}
    for s, similarities in have.items():
        of_pairs = [[getattr(p, name) for p in of.pairs if p.last] for of in similarities]
        complete = all(values and None not in values for values in of_pairs)
        found[s] = [mean(values) for values in of_pairs] if complete else []
    return found


def _figures(have: Have) -> Iterator[Figure]:
    cka, cosine = _means(have, "cka"), _means(have, "cosine")
    other = _means(have, "cosine_other_images")
    if any(cka.values()):
        values = {s: {"mean of pairs": v} for s, v in cka.items()}
        yield dots(values, "linear CKA of the last maps", "CKA, mean over pairs", 3)
    both = {s: {"same image": v, "other images": other[s]} for s, v in cosine.items() if v}
    if both:
        title = "Cosine, mean over pairs. Filled: the same image. Hollow: different images"
        yield dots(both, "cosine of the last maps", title, 3)


def _last_stages(have: Have) -> Table:
    columns = [_means(have, name) for name in ("cka", "cosine", "cosine_other_images")]
    rows = []
    for s, similarities in have.items():
        cells = [spread_of(column[s], 3) if column[s] else "-" for column in columns]
        rows.append([s.head, str(similarities[0].shared), *cells, str(len(similarities))])
    return Table(
        "The last feature maps, mean over pairs of peers",
        ("#", "shared stages", "CKA", "cosine", "cosine, other images", "n"),
        rows,
        f"± is the standard deviation over n seeds. {_NONE}",
        headers=1,
    )


def _every_pair(have: Have) -> Table:
    rows = []
    for s, similarities in have.items():
        by_place: dict[tuple[str, str], list[MapSimilarity]] = {}
        for p in (p for of in similarities for p in of.pairs):
            stages = dict.fromkeys((str(p.first_stage), str(p.second_stage)))
            by_place.setdefault((f"{p.first}, {p.second}", " and ".join(stages)), []).append(p)
        for place, of_seeds in by_place.items():
            columns = [[getattr(p, what) for p in of_seeds] for what in ("cka", "cosine")]
            cells = [spread_of(v, 3) if None not in v else "-" for v in columns]
            rows.append([s.head, *place, *cells, str(len(of_seeds))])
    head = ("#", "peers", "after stage", "CKA", "cosine", "n")
    return Table("Every pair of peers, after every stage", head, rows, _NONE, headers=3)
