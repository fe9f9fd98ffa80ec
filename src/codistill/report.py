"""Runs side by side: a table, and their learning curves as a picture.

Runs on the same images that differ in nothing but the seed (and the folder, the device, the
checkpoints) are one row group: mean and standard deviation over seeds. The test set chooses
nothing here.
"""

import csv
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from codistill import files
from codistill.config import Config, flatten
from codistill.curves import draw_curves
from codistill.errors import InputError
from codistill.train import Record

_NOT_THE_RECIPE = ("seed", "out", "device", "threads", "checkpoint_seconds", "keep_checkpoints")


@dataclass(frozen=True)
class Result:
    """What came out of one run."""

    path: Path
    config: Config
    summary: dict[str, Any]
    history: list[Record]
    parameters: dict[str, int]
    fingerprint: str
    networks: dict[str, str]
    weights: list[str]

    @property
    def label(self) -> str:
        """The setting in a few words, such as "ffl resnet20 x2 shared 2"."""
        c = self.config
        shared = f" shared {c.shared}" if c.shared else ""
        return f"{c.method['name']} {c.network} x{c.peers}{shared}"


def load_results(paths: Sequence[Path]) -> dict[str, list[Result]]:
    """The finished runs in these folders, those of one setting together, by its label."""
    groups: dict[str, list[Result]] = defaultdict(list)
    for path in paths:
        result = _load(path)
        setting = asdict(result.config)
        for key in _NOT_THE_RECIPE:
            setting.pop(key)
        setting["data"]["root"] = result.fingerprint  # the same images, wherever they are
        for option, fingerprint in result.networks.items():  # and the same teacher
            setting["method"][option] = fingerprint[:8]
        setting["weights"] = [fingerprint[:8] for fingerprint in result.weights] or None
        groups[json.dumps(setting, sort_keys=True)].append(result)
    for results in groups.values():
        seeds = [r.config.seed for r in results]
        if len(set(seeds)) < len(seeds):
            where = ", ".join(str(r.path) for r in results)
            raise InputError(f"{where} are one setting with seeds {seeds}: give each seed once")
    settings = [dict(flatten(json.loads(key))) for key in groups]
    labels = _distinct([results[0].label for results in groups.values()], settings)
    return {
        label: sorted(results, key=lambda r: r.config.seed)
        for label, results in zip(labels, groups.values(), strict=True)
    }


def rows(groups: dict[str, list[Result]]) -> Iterator[list[str]]:
    """The table: a row for each classifier of each setting."""
    for label, results in groups.items():
        speed = mean(r.summary["images_per_second"] for r in results)
        for name in results[0].summary["last"]:
            last = [r.summary["last"][name] for r in results]
            best = [r.summary["best_by_validation"].get(name) for r in results]
            yield [
                label,
                name,
                _spread([m["test/top1"] for m in last]),
                _spread([m["test/top1"] for m in best if m]) if all(best) else "-",
                _spread([m["test/top5"] for m in last]),
                _spread([m["test/nll"] for m in last], digits=3),
                str(len(results)),
                f"{speed:,.0f}",
            ]


COLUMNS = ("setting", "classifier", "top-1 %", "by val %", "top-5 %", "NLL", "n", "img/s")
CAPTION = (
    "On the test images: mean ± standard deviation over n seeds, after the last epoch; "
    '"by val": top-1 after the epoch that the held-out images chose.'
)


COMPARED = ("setting", "mean peer", "kept", "ensemble", "its own", "adds", "img/s", "n")
COMPARED_CAPTION = (
    "Test top-1 in %, mean ± standard deviation over n seeds. mean peer, ensemble, its own "
    "(classifiers that the method adds): after the last epoch. kept: the exported student, its "
    "epoch chosen by the held-out images, else the last. adds: trained (+ not trained) parameters "
    "beside the peers. img/s: while training."
)


def compared(groups: dict[str, list[Result]]) -> Iterator[list[str]]:
    """Methods side by side: one row for each setting."""
    for label, results in groups.items():
        last = [r.summary["last"] for r in results]

        def spread(name: str, last: list[dict[str, Any]] = last) -> str:
            return _spread([m[name]["test/top1"] for m in last])

        peers = [n for n in last[0] if n.startswith("peer") and n[4:].isdigit()]
        added = [n for n in last[0] if n not in (*peers, "ensemble")]
        yield [
            label,
            _spread([mean(m[n]["test/top1"] for n in peers) for m in last]),
            _spread([_kept(r.summary) for r in results]),
            spread("ensemble") if "ensemble" in last[0] else "-",
            ", ".join(f"{n} {spread(n)}" for n in added) or "-",
            _added(results[0].parameters),
            f"{mean(r.summary['images_per_second'] for r in results):,.0f}",
            str(len(results)),
        ]


def _added(parameters: dict[str, int]) -> str:
    frozen = parameters.get("frozen", 0)
    return f"{parameters['method']:,}" + (f" (+ {frozen:,})" if frozen else "")


def _parameters(parameters: dict[str, int], classifier: str) -> int | str:
    """How many a classifier has; nothing where the run does not say."""
    if classifier == "ensemble":
        return parameters["peers"]
    together = parameters["peers"] + parameters["method"]
    return parameters.get(classifier, "" if parameters.get("frozen") else together)


def _kept(summary: dict[str, Any]) -> float:
    student, which = summary["student"], "best_by_validation"
    name = student["best"]
    if name is None:
        name, which = student["last"], "last"
    return summary[which][name]["test/top1"]


def print_table(groups: dict[str, list[Result]]) -> None:
    """The table in the terminal: 80 columns wide, so without the top-5 accuracy."""
    table = Table(caption=CAPTION, caption_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    left_out = COLUMNS.index("top-5 %")
    table.add_column(COLUMNS[1], max_width=30, overflow="fold")  # names of settings, too
    for i, column in enumerate(COLUMNS):
        if i not in (0, 1, left_out):
            table.add_column(column, justify="right", no_wrap=True)
    before = None
    for row in rows(groups):
        del row[left_out]
        label, name, *cells = row
        if label != before:
            table.add_row(Text(label, style="bold"))
        table.add_row(Text(f"  {name}"), *cells)
        before = label
    Console().print(table)


def write_report(groups: dict[str, list[Result]], folder: Path) -> list[Path]:
    """Writes table.md, compared.md, runs.csv and curves.png; returns where."""
    folder.mkdir(parents=True, exist_ok=True)
    histories = {label: [r.history for r in results] for label, results in groups.items()}
    draw_curves(histories, folder / "curves.png")
    files.write_text(folder / "table.md", _markdown(COLUMNS, rows(groups), CAPTION))
    text = _markdown(COMPARED, compared(groups), COMPARED_CAPTION)
    files.write_text(folder / "compared.md", text)
    files.write_text(folder / "runs.csv", _csv(groups))
    return [folder / name for name in ("table.md", "compared.md", "runs.csv", "curves.png")]


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join([*lines, "", caption]) + "\n"


def _load(path: Path) -> Result:
    for name in ("config.yaml", "result.json"):
        if not (path / name).exists():
            state = "no run" if name == "config.yaml" else "a run that is not finished"
            raise InputError(f"{path} holds {state}: there is no {name} in it")
    try:
        lines = (path / "history.jsonl").read_text().splitlines()
        manifest = files.read_json(path / "manifest.json")
        summary = files.read_json(path / "result.json")
        _kept(summary)  # so that a file of another version is named
        return Result(
            path=path,
            config=Config.from_yaml((path / "config.yaml").read_text()),
            summary=summary,
            history=[json.loads(line) for line in lines],
            parameters=manifest["parameters"],
            fingerprint=manifest["data"]["fingerprint"],
            networks=manifest.get("networks", {}),
            weights=manifest.get("weights", []),
        )
    except (ValueError, LookupError, TypeError) as error:  # InputError is a ValueError
        raise InputError(f"{path} is damaged: {error}") from error


def _distinct(labels: list[str], settings: list[dict[str, Any]]) -> list[str]:
    """Labels that tell settings apart: by the options that differ, else by numbers."""
    total = Counter(labels)
    longer = []
    for label, setting in zip(labels, settings, strict=True):
        others = [s for n, s in zip(labels, settings, strict=True) if n == label]
        differing = [
            f"{key.rpartition('.')[2]}={setting.get(key, '-')}"
            for key in dict.fromkeys(k for s in others for k in s)
            if key != "data.root" and any(s.get(key) != setting.get(key) for s in others)
        ]
        longer.append(" ".join([label, *differing]) if total[label] > 1 else label)
    total, so_far = Counter(longer), Counter[str]()
    for i, label in enumerate(longer):
        so_far[label] += 1
        if total[label] > 1:
            longer[i] = f"{label} ({so_far[label]})"
    return longer


def _spread(values: list[float], digits: int = 2) -> str:
    centre = f"{mean(values):.{digits}f}"
    return f"{centre} ± {stdev(values):.{digits}f}" if len(values) > 1 else centre


def _rounded(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _csv(groups: dict[str, list[Result]]) -> str:
    """Every number of the table by itself: one line for each seed and classifier."""
    table = io.StringIO()
    writer = csv.writer(table)
    metrics = [f"{s}/{m}" for s in ("test", "val") for m in ("top1", "top5", "nll")]
    head = ["setting", "seed", "classifier", "epochs", "parameters", *metrics]
    writer.writerow([*head, "best_epoch", *(f"best/{m}" for m in metrics), "images_per_second"])
    for label, results in groups.items():
        for r in results:
            for name, last in r.summary["last"].items():
                best = r.summary["best_by_validation"].get(name, {})
                count = _parameters(r.parameters, name)
                writer.writerow(
                    [label, r.config.seed, name, r.summary["epochs"], count]
                    + [_rounded(last.get(m)) for m in metrics]
                    + [best.get("epoch", "")]
                    + [_rounded(best.get(m)) for m in metrics]
                    + [f"{r.summary['images_per_second']:.1f}"]
                )
    return table.getvalue()
