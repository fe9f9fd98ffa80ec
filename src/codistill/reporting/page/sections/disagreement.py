"""What the peers say of each other's answers: divergence and disagreement, epoch by epoch."""

from collections.abc import Sequence
from itertools import zip_longest
from statistics import mean

from codistill.reporting.page.by_epoch import bands_of_settings
from codistill.reporting.page.drawing import Style, band, canvas, integer_epochs, svg_of
from codistill.reporting.page.parts import Figure, Figures, Fold, Part, Section, Table
from codistill.reporting.page.setting import Setting, key_of, named
from codistill.reporting.tables import spread_of

KINDS = {"kl": "KL divergence [nats]", "disagreement": "disagreement [%]"}


def flow_of_knowledge(settings: Sequence[Setting]) -> Section:
    """How far the peers' predictions are from each other."""
    known = [s for s in settings if pairs(s, "kl") or pairs(s, "disagreement")]
    parts: list[Part] = []
    if len(known) > 1:
        together = [_overview(known, kind) for kind in KINDS]
        parts += [Figures([f for f in together if f]), key_of(known, "flow-key")]
    tops = {kind: max([_largest(s, kind) for s in known], default=0.0) for kind in KINDS}
    for s in known:
        figures = [_by_pair(s, kind) for kind in KINDS if pairs(s, kind)]
        matrices = [_matrix(s, kind, tops[kind]) for kind in KINDS if pairs(s, kind)]
        parts.append(Fold(s.title, [Figures(figures), *matrices], open=len(settings) <= 3))
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
        "On the test images after each epoch. KL(i ‖ j) is large where peer i holds likely what "
        "peer j does not, and 0 where they say the same; disagreement is the share of images that "
        "two peers classify differently. Curves that fall together mean that the peers become one "
        "another's copies, which may help each and spoils their ensemble; they do not tell who "
        "taught whom.",
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
    return setting.columns(
        lambda record: mean(record[k] for k in keys) if all(k in record for k in keys) else None
    )


def _overview(settings: Sequence[Setting], kind: str) -> Figure | None:
    curves = {s: _mean_pair(s, kind) for s in settings if pairs(s, kind)}
    curves = {s: c for s, c in curves.items() if any(c)}
    if not curves:
        return None
    svg, ends = bands_of_settings(curves, KINDS[kind], f"flow-{kind}", bottom=0.0)
    ranked = sorted(ends.items(), key=lambda item: item[1])
    text = ", ".join(f"{number}: {y:.3g}" for number, y in ranked)
    return Figure(
        f"Mean over all pairs of peers: {KINDS[kind]}",
        svg,
        f"By epoch. After the last one, lowest first, by number of the setting: {text}.",
    )


def _by_pair(setting: Setting, kind: str) -> Figure:
    curves = pairs(setting, kind)
    if kind == "disagreement":  # is the same both ways
        curves = {(i, j): c for (i, j), c in curves.items() if (j, i) not in curves or i < j}
    arrow = "‖" if kind == "kl" else "and"
    names = {pair: f"{pair[0]} {arrow} {pair[1]}" for pair in curves}
    with canvas() as (figure, axes):
        for i, (pair, columns) in enumerate(curves.items()):
            band(axes, columns, Style.number(i), names[pair])
        integer_epochs(axes)
        axes.set_ylabel(KINDS[kind])
        axes.set_ylim(bottom=0.0)
        axes.legend(ncols=2 if len(curves) > 3 else 1)
        svg = svg_of(figure, f"flow-{setting.name}-{kind}")
    last = ", ".join(f"{names[pair]} {mean(c[-1]):.3g}" for pair, c in curves.items() if c[-1])
    text = f"By epoch, for each pair. After the last: {last}."
    return Figure(f"{setting.label}: {KINDS[kind]}, {setting.n}", svg, text)


def _largest(setting: Setting, kind: str) -> float:
    """After the last epoch."""
    return max((mean(c[-1]) for c in pairs(setting, kind).values() if c[-1]), default=0.0)


def _matrix(setting: Setting, kind: str, top: float) -> Table:
    """The values after the last epoch; `top` is the darkest on the page."""
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
        f"Mean ± standard deviation, {setting.n}. The darkest cells are those of the setting with "
        "the largest value.",
        shades=[[mean(v) / top if v and top else 0.0 for v in row] for row in values],
    )
