"""The settings of the page, and the tables of accuracy."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from codistill.analysis.differences import missing_seeds
from codistill.reporting.page.dots import dots
from codistill.reporting.page.parts import (
    Beside,
    Code,
    Figure,
    Fold,
    Paragraph,
    Part,
    Section,
    Table,
)
from codistill.reporting.page.setting import Setting, numbered, top1_of
from codistill.reporting.tables import CAPTION, COLUMNS, COMPARED, COMPARED_CAPTION, compared, rows
from codistill.runs.finished import Result
from codistill.runs.manifest import Process

_NOTES = 5
"""Notes that stand open."""


def what_was_compared(settings: Sequence[Setting], notes: Sequence[str]) -> Section:
    """The settings, their common options, and the commands that made the runs."""
    common, own = _options(settings)
    told = [Paragraph(f"{note[0].upper()}{note[1:]}.", note=True) for note in notes]
    parts: list[Part] = [*told, _settings(settings)]
    if len(told) > _NOTES:
        parts = [Fold(f"{len(told)} notes on the runs", told), _settings(settings)]
    parts += [Paragraph(line) for line in _data(settings)]
    if any(own.values()):
        differing = [[s.head, ", ".join(own[s.label]) or "-"] for s in settings]
        caption = "Options in which the settings differ"
        table = Table(caption, ("#", "options"), differing)
        parts.append(Fold(caption, [table]))
    parts += [
        Fold("Options that all settings have in common", [_common(common)]),
        Fold("How it was made: commands, versions, machines", list(_made(settings))),
    ]
    return Section(
        "runs",
        "What was compared",
        "Runs that differ only in the seed are one setting. Each setting has a number, the same in "
        "all tables and figures of this page.",
        parts,
    )


def _settings(settings: Sequence[Setting]) -> Table:
    return Table(
        "Settings",
        ("#", "setting", "networks", "peers", "shared stages", "seeds", "n", "epochs"),
        [
            [
                s.head,
                s.label,
                ", ".join(dict.fromkeys(config.networks())),
                str(config.peers),
                str(config.shared),
                ", ".join(str(r.config.seed) for r in s.results),
                str(len(s.results)),
                ", ".join(sorted({str(r.scores.epochs) for r in s.results})),
            ]
            for s in settings
            for config in [s.results[0].config]
        ],
        "n: number of runs, each with another seed. “±” is everywhere on this page the standard "
        "deviation over them, with n - 1 in the denominator: how far runs lie from each other, not "
        "how well the mean is known. One seed has no “±”.",
        headers=2,
    )


def tables(
    settings: Sequence[Setting], published: Mapping[str, str], sources: Sequence[str] = ()
) -> Section:
    """The tables of the report."""
    by_label = {s.label: list(s.results) for s in settings}
    head, lines = ["#", *COMPARED[1:]], numbered(settings, compared(by_label))
    if published:
        head.append("published")
        lines = [[*x, published.get(s.label, "-")] for s, x in zip(settings, lines, strict=True)]
    every = Table(
        "Every classifier",
        ("#", *COLUMNS[1:]),
        [row for s in settings for row in _rows(s)],
        CAPTION,
        headers=2,
    )
    return Section(
        "tables",
        "Accuracy",
        "One row for each setting. Compare single networks with each other (mean peer, kept), and "
        "combinations of networks with each other (ensemble, its own). A difference smaller than a "
        "few standard deviations may be chance.",
        [
            Beside(
                [_dots(settings)] if len(settings) > 1 else [],
                Table("Settings side by side", head, lines, COMPARED_CAPTION),
            ),
            *(Paragraph(f"Published: {source}") for source in sources),
            every if len(settings) == 1 else Fold("Every classifier of every setting", [every]),
        ],
    )


def _rows(setting: Setting) -> list[list[str]]:
    """The rows of every classifier of a setting."""
    found = numbered([setting], rows({setting.label: list(setting.results)}))
    return [[number, setting.called(name), *cells] for number, name, *cells in found]


def _dots(settings: Sequence[Setting]) -> Figure:
    """Mean peer, ensemble and the method's own classifier of each setting."""
    values = {}
    for s in settings:
        names = ["mean peer", "ensemble", s.own_classifier]
        values[s] = {what: top1_of(s, what) for what in names if what}
    return dots(
        values,
        "test top-1 [%], last epoch",
        "Filled: mean of the peers. Hollow: their ensemble. Half-filled: the method's own "
        "classifier. Bars: one standard deviation over seeds",
    )


def seeds_of_others(settings: Sequence[Setting]) -> list[str]:
    """A note on each setting without a seed that another one has."""
    by_seed = {s.title: {r.config.seed: r for r in s.results} for s in settings}
    return missing_seeds(by_seed, sorted({seed for runs in by_seed.values() for seed in runs}))


def few_seeds(settings: Sequence[Setting]) -> list[str]:
    """A note on settings with fewer than three seeds, if there are any."""
    few = [str(s.number) for s in settings if len(s.results) < 3]
    which = f"setting{'s' if len(few) > 1 else ''} {', '.join(few)}"
    which = "every setting" if len(few) == len(settings) else which
    return (
        [f"fewer than three seeds, so the standard deviation is hardly known: {which}"]
        if few
        else []
    )


def _data(settings: Sequence[Setting]) -> Iterator[str]:
    found: dict[str, list[Setting]] = {}
    for s in settings:
        for r in s.results:
            found.setdefault(_images(r), []).append(s)
    for text, of in found.items():
        numbers = ", ".join(dict.fromkeys(str(s.number) for s in of))
        yield f"Data{f' of settings {numbers}' if len(found) > 1 else ''}: {text}."
    if len({r.test_images for s in settings for r in s.results}) > 1:
        yield "The test images are not the same: accuracies on them cannot be compared."


def _images(result: Result) -> str:
    names = {"train": "to train on", "val": "held out to choose the epoch", "test": "to test on"}
    images = [f"{n:,} {names.get(k, k)}" for k, n in result.manifest.images.items()]
    facts = [result.config.data.name, f"{len(result.manifest.classes)} classes"]
    facts.append(f"images: {', '.join(images)}")
    fingerprint, share, seed = result.test_images
    facts.append(f"fingerprint {fingerprint[:12]}")
    if share is not None:
        facts.append(f"of which {share:.0%} to test on were drawn with data.split_seed {seed}")
    return "; ".join(facts)


def _options(settings: Sequence[Setting]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """The options that all settings have in common; for each label, those in which it differs."""
    flat = {}
    for s in settings:
        r = s.results[0]
        flat[s.label] = {k: json.dumps(v) for k, v in r.recipe.items() if k != "data.root"}
    keys = dict.fromkeys(k for options in flat.values() for k in options)
    same = [k for k in keys if len({options.get(k) for options in flat.values()}) == 1]
    common = {k: next(iter(flat.values()))[k] for k in same}
    own = {
        label: [f"{k}={v.strip(chr(34))}" for k, v in options.items() if k not in common]
        for label, options in flat.items()
    }
    return common, own


def _common(common: Mapping[str, str]) -> Table:
    lines = [(k, v.strip('"')) for k, v in common.items()]
    return Table("Options that all settings have in common", ("option", "value"), lines)


def _made(settings: Sequence[Setting]) -> Iterator[Part]:
    lines = []
    machines: dict[tuple[str, ...], list[str]] = {}
    for s in settings:
        for r in s.results:
            lines.append(f"{_command(r)}  # {r.path}")
            for process in r.manifest.processes:
                machines.setdefault((str(s.number), *_machine(r, process)), []).append(
                    str(r.config.seed)
                )
    yield Paragraph(
        "Each run's folder holds its resolved settings: codistill train --config RUN/config.yaml "
        "--out OTHER trains it again, on the same machine with the versions below to the same bits."
    )
    yield Code("Commands as they were given, and the folders of the runs", lines)
    rows = [(n, ", ".join(dict.fromkeys(seeds)), *m) for (n, *m), seeds in machines.items()]
    head = ("#", "seeds", "codistill", "torch", "python", "device", "threads", "platform")
    yield Table("Versions and machines", head, rows, headers=2)


def _command(result: Result) -> str:
    program, *arguments = result.manifest.command
    program = Path(program).name
    return shlex.join(["codistill" if program == "cli.py" else program, *arguments])


def _machine(result: Result, process: Process) -> tuple[str, ...]:
    return (
        " and ".join(result.manifest.versions) or "-",
        process.packages.get("torch") or "-",
        process.python,
        f"{process.device} {process.processor}".strip(),
        str(process.threads),
        process.platform,
    )
