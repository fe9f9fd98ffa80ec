"""Divergence and disagreement between the peers' answers, epoch by epoch."""

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from statistics import mean

from codistill.reporting.page.by_epoch import parts_by_epoch, settings_by_epoch
from codistill.reporting.page.parts import Figure, Figures, Paragraph, Part, Section, Table
from codistill.reporting.page.setting import Setting, folds, key_of, named
from codistill.reporting.tables import spread_of
from codistill.training.record import Record

KINDS = {"kl": "KL divergence [nats]", "disagreement": "disagreement [%]"}


def flow_of_knowledge(settings: Sequence[Setting]) -> Section:
    """The distances between the peers' predictions."""
    known = [s for s in settings if pairs(s, "kl") or pairs(s, "disagreement")]
    parts: list[Part] = []
    if len(known) > 1:
        together = [f for kind in KINDS for f in _overview(known, kind)]
        parts += [Figures(together), key_of(known)]
    tops = {kind: max([_largest(s, kind) for s in known], default=0.0) for kind in KINDS}
    of_settings: dict[Setting, list[Part]] = {}
    for s in known:
        kinds = [kind for kind in KINDS if pairs(s, kind)]
        figures = Figures([_by_pair(s, kind) for kind in kinds])
        many = len(s.peers) > 2
        ends = [_matrix(s, k, tops[k]) if many else _of_two(s, k) for k in kinds]
        of_settings[s] = [figures, *ends]
    parts += folds(of_settings, len(settings) > 1)
    alone = [s for s in settings if len(s.peers) < 2]
    older = [s for s in settings if s not in known and s not in alone]
    missing = [f"One peer, so no pairs: {named(alone, settings)}."] if alone else []
    if older:
        missing.append(
            "Trained by a version of codistill that did not record divergence and disagreement "
            f"between peers: {named(older, settings)}."
        )
    return Section(
        "flow",
        "Flow of knowledge between peers",
        "Measured on the test images after each epoch. KL(i ‖ j) is large if peer i thinks likely "
        "what peer j does not, and 0 if their predictions are equal. Disagreement is the share of "
        "images that two peers classify differently. If both fall, the peers become copies of each "
        "other: that may help each of them, and it spoils their ensemble. The curves do not show "
        "who taught whom.",
        parts,
        missing,
    )


def pairs(setting: Setting, kind: str) -> dict[tuple[str, str], list[list[float]]]:
    """For each pair of peers, the values of the seeds in each epoch."""
    found = {}
    for key in setting.keys(f"test/{kind}/"):
        first, _, second = key.removeprefix(f"test/{kind}/").partition("/")
        found[first, second] = setting.curve(key)
    return found


def _mean_pair(setting: Setting, kind: str) -> list[list[float]]:
    """The mean over pairs, of each seed in each epoch."""
    keys = setting.keys(f"test/{kind}/")

    def value(record: Record) -> float | None:
        return mean(record[k] for k in keys) if keys and all(k in record for k in keys) else None

    return setting.columns(value)


def _overview(settings: Sequence[Setting], kind: str) -> Iterator[Figure]:
    curves = {s: c for s in settings if any(c := _mean_pair(s, kind))}
    if curves:
        title = f"Mean over all pairs of peers: {KINDS[kind]}"
        yield settings_by_epoch(curves, KINDS[kind], title, highest_first=False)


def _by_pair(setting: Setting, kind: str) -> Figure:
    curves = pairs(setting, kind)
    if kind == "disagreement":  # is the same both ways
        curves = {(i, j): c for (i, j), c in curves.items() if (j, i) not in curves or i < j}
    sign = "‖" if kind == "kl" else "and"
    named_curves = {f"{i} {sign} {j}": c for (i, j), c in curves.items()}
    title = f"{setting.number}: {KINDS[kind]}, {setting.n}"
    return parts_by_epoch(named_curves, KINDS[kind], title, bottom=0.0)


def _largest(setting: Setting, kind: str) -> float:
    """The largest mean of a pair after the last epoch."""
    return max((mean(c[-1]) for c in pairs(setting, kind).values() if c[-1]), default=0.0)


def _of_two(setting: Setting, kind: str) -> Paragraph:
    """The values of the only two peers after the last epoch."""
    sign = "‖" if kind == "kl" else "and"
    said = [
        f"{i} {sign} {j}: {spread_of(c[-1], 3 if kind == 'kl' else 1)}"
        for (i, j), c in pairs(setting, kind).items()
        if c[-1]
    ]
    return Paragraph(f"{KINDS[kind]} after the last epoch: {'; '.join(said)} ({setting.n}).")


def _matrix(setting: Setting, kind: str, top: float) -> Table:
    """The values after the last epoch; `top` is the value of the darkest cell on the page."""
    found = pairs(setting, kind)
    peers = [*dict.fromkeys(p for pair in found for p in pair)]

    def last(i: str, j: str) -> list[float]:
        columns = found.get((i, j)) or ([] if kind == "kl" else found.get((j, i)) or [])
        return columns[-1] if columns else []

    values = [[last(i, j) for j in peers] for i in peers]
    return Table(
        f"{KINDS[kind]} after the last epoch",
        ("row ‖ column" if kind == "kl" else "", *peers),
        [
            [i, *(spread_of(v, 3 if kind == "kl" else 1) if v else "-" for v in row)]
            for i, row in zip_longest(peers, values)
        ],
        f"Mean ± standard deviation, {setting.n}. The darker the cell, the larger the value; one "
        "scale for all settings.",
        shades=[[mean(v) / top if v and top else 0.0 for v in row] for row in values],
    )
