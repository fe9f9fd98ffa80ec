"""The differences of a comparison as tables: printed, in Markdown, as CSV."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from codistill import files
from codistill.analysis.differences import EPOCHS, Difference, Epoch
from codistill.messages import signed
from codistill.reporting.tables import spread_of
from codistill.reporting.text import csv_table, markdown_table, text_table, wrapped
from codistill.runs.finished import Result

_HALF = ("difference [95 % CI]", "sd", "g", "p", "verdict")
HEAD = (
    "setting",
    "classifier",
    "against",
    "n",
    *(f"{epoch}: {column}" for epoch in ("last epoch", "by validation") for column in _HALF),
)
CAPTION = (
    "Test top-1 of each run minus that of the networks trained alone (independent) with the same "
    "seed, in percentage points: mean over n seeds with its 95 % confidence interval (paired t). "
    "One network is compared with one: a peer, and the leader or mean teacher of peer k, with peer "
    "k. Several are compared with several: the ensemble, and classifiers that fuse peers, with the "
    "ensemble of the networks alone. sd: standard deviation of the differences. g: Hedges' g_z, "
    "which is mean / sd without its small-sample bias; it is not defined for n = 2 (-). p: paired "
    "t test, two-sided, after Holm's correction for all comparisons of its kind (mean peer; a "
    "named student; each peer; ensemble; its own) in its column. verdict: helped or hurt if "
    "p < 0.05. by validation: the epoch of each run that the held-out images chose."
)
_SHORT_CAPTION = (
    "Test top-1 of each run minus that of the networks alone (independent) with the same seed, in "
    "points: mean [95 % CI]. Peers are compared with peers; ensembles and fused classifiers with "
    "the ensemble of the networks alone. p: paired t test, last epoch, Holm-corrected. by val: the "
    "epoch that the held-out images chose."
)


def print_differences(
    alone: Mapping[str, Sequence[Result]],
    found: Sequence[Difference],
    notes: Iterable[str],
    in_short: str = "",
) -> None:
    """Prints the table for a terminal of 80 columns.

    Args:
        alone: the runs of the networks alone, by label; their accuracies come first.
        found: all comparisons.
        notes: notes for the reader.
        in_short: the `conclusion`, which comes last.
    """
    rows: list[list[str]] = []
    for label, results in alone.items():
        rows.append([f"{label}, %"])
        for classifier in ("mean peer", "ensemble"):
            cells = [_accuracy(results, epoch, classifier) for epoch in EPOCHS]
            if cells != ["-", "-"]:
                rows.append([f"  {classifier}", *cells, "", "", str(len(results))])
    for label, of_row in groupby(_side_by_side(found), key=lambda pair: pair[0].label):
        rows.append([label])
        for last, best in of_row:
            intervals = [_interval(d, short=True) if d else "-" for d in (last, best)]
            n = str(last.statistics.n)
            rows.append([f"  {last.classifier}", *intervals, _p(last.p), last.verdict, n])
    head = ("  classifier", "last epoch", "by val", "p", "verdict", "n")
    print(text_table(head, rows, _SHORT_CAPTION))
    for note in notes:
        print(f"note: {note}")
    if in_short:
        print(wrapped(in_short))


def write_differences(
    found: Sequence[Difference],
    notes: Sequence[str],
    published: Sequence[str],
    folder: Path,
    in_short: str = "",
) -> list[Path]:
    """Writes differences.md and differences.csv; returns their paths.

    Args:
        found: all comparisons.
        notes: notes for the reader, such as seeds that are missing.
        published: lines on figures of others.
        folder: folder to write to.
        in_short: the `conclusion`, which comes first.
    """
    first = f"{in_short}\n\n" if in_short else ""
    text = f"{first}{markdown_table(HEAD, difference_rows(found))}\n\n{CAPTION}\n"
    for title, lines in (("Notes", notes), ("Published", published)):
        if lines:
            text += f"\n**{title}**\n\n" + "".join(f"- {line}\n" for line in lines)
    files.write_text(folder / "differences.md", text)
    files.write_text(folder / "differences.csv", _csv(found))
    return [folder / "differences.md", folder / "differences.csv"]


def difference_rows(found: Sequence[Difference]) -> list[list[str]]:
    """The table of differences.md, in the columns of `HEAD`."""
    return [
        [last.label, last.classifier, last.against, str(last.statistics.n), *_half(last)]
        + (_half(best) if best else ["-"] * len(_HALF))
        for last, best in _side_by_side(found)
    ]


def _side_by_side(found: Sequence[Difference]) -> list[tuple[Difference, Difference | None]]:
    """Each difference after the last epoch, with that after the epoch that validation chose."""
    last, best = ([d for d in found if d.epoch == epoch] for epoch in EPOCHS)
    other = {(d.label, d.classifier): d for d in best}
    return [(d, other.get((d.label, d.classifier))) for d in last]


def _half(d: Difference) -> list[str]:
    s = d.statistics
    sd = "-" if s.sd is None else f"{s.sd:.2f}"
    effect = "-" if s.effect is None else signed(s.effect, 2)
    return [_interval(d), sd, effect, _p(d.p), d.verdict]


def _accuracy(results: Sequence[Result], epoch: Epoch, classifier: str) -> str:
    """Mean and standard deviation over seeds; "-" where a run did not measure it."""
    measured = [r.scores.accuracy(epoch, classifier) for r in results]
    values = [value for value in measured if value is not None]
    return spread_of(values) if values and len(values) == len(measured) else "-"


def _interval(d: Difference, short: bool = False) -> str:
    s = d.statistics
    if s.interval is None:
        return signed(s.mean, 2)
    low, high = s.interval
    digits = 2 if not short else 1 if max(abs(low), abs(high)) < 9.95 else 0
    return f"{signed(s.mean, 2)} [{signed(low, digits)}, {signed(high, digits)}]"


def _p(p: float | None) -> str:
    if p is None:
        return "-"
    return "<.001" if p < 0.001 else f"{p:.3f}"


def _csv(found: Sequence[Difference]) -> str:
    head = ["setting", "classifier", "against", "epoch", "n", "seeds", "differences", "mean", "sd"]
    head += ["ci_low", "ci_high", "hedges_g", "p", "kind", "comparisons", "p_holm", "verdict"]
    lines = []
    for d in found:
        s = d.statistics
        numbers = [_number(x) for x in (s.mean, s.sd, *(s.interval or (None, None)), s.effect, s.p)]
        lines.append(
            [d.label, d.classifier, d.against, d.epoch, s.n, " ".join(map(str, d.seeds))]
            + [" ".join(f"{x:.4f}" for x in s.differences), *numbers]
            + [d.kind, str(d.comparisons), _number(d.p), d.verdict]
        )
    return csv_table(head, lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
