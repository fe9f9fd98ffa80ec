"""The differences of a comparison as tables: printed, in Markdown, as CSV."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from codistill import files
from codistill.analysis.differences import Difference
from codistill.messages import signed
from codistill.reporting.tables import spread_of
from codistill.reporting.text import csv_table, markdown_table, text_table, wrapped
from codistill.runs.finished import Result
from codistill.runs.results import Epoch

_PART = ("difference [95 % CI]", "sd", "g", "p", "verdict")
NAMES: dict[Epoch, str] = {
    "last": "last epoch",
    "last_five": "last 5 epochs",
    "best_by_validation": "by validation",
}
CAPTION = (
    "Test top-1 of each run minus that of the networks trained alone (independent) with the same "
    "seed, in percentage points: mean over n seeds with its 95 % confidence interval (paired t). "
    "One network is compared with one: a peer, and the leader or mean teacher of peer k, with peer "
    "k. Several are compared with several: the ensemble, and classifiers that fuse peers, with the "
    "ensemble of the networks alone. sd: standard deviation of the differences. g: Hedges' g_z, "
    "which is mean / sd without its small-sample bias; it is not defined for n = 2 (-). p: paired "
    "t test, two-sided, after Holm's correction for all comparisons of its kind (mean peer; a "
    "named student; each peer; ensemble; its own) in its column. verdict: helped or hurt if "
    "p < 0.05. last 5 epochs: the mean over them, of trainings of ten epochs or more. by "
    "validation: the epoch of each run that the held-out images chose."
)
_SHORT_CAPTION = (
    "Test top-1 of each run minus that of the networks alone (independent) with the same seed, in "
    "points: mean [95 % CI]. Peers are compared with peers; ensembles and fused classifiers with "
    "the ensemble of the networks alone. p: paired t test, last epoch, Holm-corrected. "
)
_BESIDE: dict[Epoch, tuple[str, str]] = {
    "best_by_validation": ("by val", "by val: the epoch that the held-out images chose."),
    "last_five": ("last 5", "last 5: the mean over the last five epochs."),
}


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
    there = {d.epoch for d in found}
    beside: Epoch = "last_five" if there == {"last", "last_five"} else "best_by_validation"
    epochs: tuple[Epoch, ...] = ("last", beside)
    rows: list[list[str]] = []
    for label, results in alone.items():
        rows.append([f"{label}, %"])
        for classifier in ("mean peer", "ensemble"):
            cells = [_accuracy(results, epoch, classifier) for epoch in epochs]
            if cells != ["-", "-"]:
                rows.append([f"  {classifier}", *cells, "", "", str(len(results))])
    for label, of_row in groupby(_side_by_side(found), key=lambda parts: parts["last"].label):
        rows.append([label])
        for parts in of_row:
            last = parts["last"]
            intervals = [_interval(parts[e], short=True) if e in parts else "-" for e in epochs]
            n = str(last.statistics.n)
            rows.append([f"  {last.classifier}", *intervals, _p(last.p), last.verdict, n])
    name, caption = _BESIDE[beside]
    head = ("  classifier", "last epoch", name, "p", "verdict", "n")
    print(text_table(head, rows, f"{_SHORT_CAPTION}{caption}"))
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
    text = f"{first}{markdown_table(*difference_table(found))}\n\n{CAPTION}\n"
    for title, lines in (("Notes", notes), ("Published", published)):
        if lines:
            text += f"\n**{title}**\n\n" + "".join(f"- {line}\n" for line in lines)
    files.write_text(folder / "differences.md", text)
    files.write_text(folder / "differences.csv", _csv(found))
    return [folder / "differences.md", folder / "differences.csv"]


def difference_table(found: Sequence[Difference]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of differences.md.

    It lacks the last five epochs where every training is too short.
    """
    there = {d.epoch for d in found}
    epochs = [epoch for epoch in NAMES if epoch != "last_five" or epoch in there]
    head = ["setting", "classifier", "against", "n"]
    head += [f"{NAMES[epoch]}: {column}" for epoch in epochs for column in _PART]
    rows = []
    for parts in _side_by_side(found):
        last = parts["last"]
        row = [last.label, last.classifier, last.against, str(last.statistics.n)]
        for epoch in epochs:
            row += _part(parts[epoch]) if epoch in parts else ["-"] * len(_PART)
        rows.append(row)
    return head, rows


def _side_by_side(found: Sequence[Difference]) -> list[dict[Epoch, Difference]]:
    """Each difference after the last epoch, with the others of its classifier."""
    every: dict[tuple[str, str], dict[Epoch, Difference]] = {}
    for d in found:
        every.setdefault((d.label, d.classifier), {})[d.epoch] = d
    return list(every.values())


def _part(d: Difference) -> list[str]:
    s = d.statistics
    sd = "-" if s.sd is None else f"{s.sd:.2f}"
    effect = "-" if s.effect is None else signed(s.effect, 2)
    return [_interval(d), sd, effect, _p(d.p), d.verdict]


def _accuracy(results: Sequence[Result], epoch: Epoch, classifier: str) -> str:
    """Mean and standard deviation over seeds; "-" where a run did not measure it."""
    measured = [r.accuracy(epoch, classifier) for r in results]
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
