"""How alike the peers' feature maps are, methods side by side."""

from collections.abc import Iterator, Sequence
from statistics import mean

from codistill.analysis import Analysis, MapSimilarity, Similarities
from codistill.reporting.page.dots import dots
from codistill.reporting.page.measure import Measured
from codistill.reporting.page.parts import Figure, Figures, Fold, Paragraph, Part, Section, Table
from codistill.reporting.page.setting import Setting
from codistill.reporting.tables import spread_of

_NONE = (
    "“-”, of one seed or more: the maps have different shapes and so no cosine, which is measured "
    "of the last maps only; or a map is the same for all images (a dead peer) and has no CKA."
)


def likeness_of_maps(measured: Measured, settings: Sequence[Setting]) -> Section:
    """CKA and cosine of the peers' feature maps."""
    have, missing = measured.parts(lambda a: a.similarity)
    parts: list[Part] = []
    if have:
        parts += (Figures(list(_figures(have))), _last_stages(have))
        every = _every_pair(have)
        parts.append(Fold(every.caption, [every, *_notes(have)]))
    seen = [_of(a) for analyses in have.values() for a in analyses]
    images = sorted({f"{s.images:,} of {s.available:,}" for s in seen})
    return Section(
        "alike",
        "Are the peers alike inside?",
        "Linear CKA compares what two peers' feature maps say of the same images: 1 where a "
        "rotation and a scale make them equal, about 0 where they are unrelated. Cosine compares "
        "them number by number, so it is high only where channels mean the same; the cosine "
        "between maps of different images is what it would be if they said nothing of the image. "
        "Peers that share a trunk are alike to begin with: compare methods on equal trunks. "
        f"Measured on test images ({', '.join(images) or 'none'}), after the last epoch.",
        parts,
        missing,
    )


def _notes(have: dict[Setting, list[Analysis]]) -> Iterator[Paragraph]:
    notes: dict[str, list[Setting]] = {}
    for s, analyses in have.items():
        for note in dict.fromkeys(note for a in analyses for note in _of(a).notes):
            notes.setdefault(note, []).append(s)
    for note, of in notes.items():
        yield Paragraph(f"{'; '.join(s.title for s in of)}: {note}.")


def _of(analysis: Analysis) -> Similarities:
    assert isinstance(analysis.similarity, Similarities)
    return analysis.similarity


def _last(analysis: Analysis) -> list[MapSimilarity]:
    return [pair for pair in _of(analysis).pairs if pair.last]


def _means(have: dict[Setting, list[Analysis]], name: str) -> dict[Setting, dict[str, list[float]]]:
    """For each setting and seed the mean over pairs, of the maps that the heads read.

    None of a setting where a pair of a seed has no such number.
    """
    found = {}
    for s, analyses in have.items():
        values: list[float] = []
        for a in analyses:
            of_pairs = [getattr(pair, name) for pair in _last(a)]
            known = [x for x in of_pairs if x is not None]
            values += [mean(known)] if known and len(known) == len(of_pairs) else []
        found[s] = {"mean of pairs": values if len(values) == len(analyses) else []}
    return found


def _figures(have: dict[Setting, list[Analysis]]) -> Iterator[Figure]:
    cka = {s: {"mean of pairs": v["mean of pairs"]} for s, v in _means(have, "cka").items()}
    if any(v["mean of pairs"] for v in cka.values()):
        yield dots(cka, "linear CKA of the last maps", "CKA, mean over pairs", 3)
    cosine, other = _means(have, "cosine"), _means(have, "cosine_other_images")
    both = {
        s: {"same image": v["mean of pairs"], "other images": other[s]["mean of pairs"]}
        for s, v in cosine.items()
        if v["mean of pairs"]
    }
    if both:
        title = "Cosine, mean over pairs. Filled: the same image. Hollow: different images"
        yield dots(both, "cosine of the last maps", title, 3)


def _last_stages(have: dict[Setting, list[Analysis]]) -> Table:
    columns = [_means(have, name) for name in ("cka", "cosine", "cosine_other_images")]
    rows = []
    for s, analyses in have.items():
        values = [column[s]["mean of pairs"] for column in columns]
        cells = [spread_of(v, 3) if v else "-" for v in values]
        shared = str(_of(analyses[0]).shared)
        rows.append([str(s.number), s.label, shared, *cells, str(len(analyses))])
    return Table(
        "The last feature maps, mean over pairs of peers",
        ("#", "setting", "shared stages", "CKA", "cosine", "cosine, other images", "n"),
        rows,
        f"± is the standard deviation over n seeds. {_NONE}",
        headers=2,
    )


def _every_pair(have: dict[Setting, list[Analysis]]) -> Table:
    rows = []
    for s, analyses in have.items():
        by_place: dict[tuple[str, str], list[MapSimilarity]] = {}
        for p in (p for a in analyses for p in _of(a).pairs):
            stages = dict.fromkeys((str(p.first_stage), str(p.second_stage)))
            by_place.setdefault((f"{p.first}, {p.second}", " and ".join(stages)), []).append(p)
        for place, of_seeds in by_place.items():
            columns = [[getattr(p, what) for p in of_seeds] for what in ("cka", "cosine")]
            cells = [spread_of(v, 3) if None not in v else "-" for v in columns]
            rows.append([str(s.number), s.label, *place, *cells, str(len(of_seeds))])
    head = ("#", "setting", "peers", "after stage", "CKA", "cosine", "n")
    return Table("Every pair of peers, after every stage", head, rows, _NONE, headers=4)
