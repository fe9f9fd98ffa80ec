"""Finished runs, read from their folders; those that differ in nothing but the seed together."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from codistill import files
from codistill.errors import InputError
from codistill.runs.history import read_history
from codistill.runs.results import kept_top1
from codistill.settings.config import Config, flatten
from codistill.training.record import Record

_NOT_THE_RECIPE = (
    *("seed", "out", "device", "threads", "recompute", "compile", "cuda_graphs"),
    *("checkpoint_seconds", "keep_checkpoints", "loggers", "project"),
)


@dataclass(frozen=True)
class Result:
    """What came out of one run.

    Attributes:
        path: its folder.
        config: its settings, resolved.
        summary: what `results.summarise` made of its history.
        history: one record for each epoch.
        parameters: what `manifest.parameter_counts` counted.
        fingerprint: of its images.
        networks: fingerprints of the networks that its method was given, by option.
        weights: fingerprints of the files that its peers started from.
        students: for each classifier of which one is kept, the peer it is or copies.
        versions: of codistill that trained it: commits, or releases of the package.
        manifest: its manifest.json: command, machines, classes, how many images.
    """

    path: Path
    config: Config
    summary: dict[str, Any]
    history: list[Record]
    parameters: dict[str, int]
    fingerprint: str
    networks: dict[str, str]
    weights: list[str]
    students: dict[str, int]
    versions: tuple[str, ...]
    manifest: dict[str, Any] = field(default_factory=dict)

    @property
    def test_images(self) -> tuple[str, float | None, int | None]:
        """What tells test images apart: fingerprint, share and seed of the draw, if one was made.

        A run's configuration is resolved: it has a `data.test_fraction` where, and only where, the
        data had no test images of their own.
        """
        data = self.config.data
        drawn = data.test_fraction is not None
        return self.fingerprint, data.test_fraction, data.split_seed if drawn else None

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
        r = load_result(path)
        setting = what_is_compared(r.config, r.fingerprint, r.networks, r.weights)
        groups[json.dumps(setting, sort_keys=True)].append(r)
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


def what_is_compared(
    config: Config, fingerprint: str, networks: dict[str, str], weights: Sequence[str]
) -> dict[str, Any]:
    """The settings that seeds of one row have in common: files by content, images wherever."""
    setting = asdict(config)
    for key in _NOT_THE_RECIPE:
        setting.pop(key)
    setting["data"]["root"] = fingerprint  # the same images, wherever they are
    for option, sha256 in networks.items():  # and the same teacher
        setting["method"][option] = sha256[:8]
    setting["weights"] = [sha256[:8] for sha256 in weights] or None
    return setting


def version_notes(groups: Mapping[str, Sequence[Result]]) -> list[str]:
    """For each row whose runs different versions of codistill trained: which seed by which."""
    notes = []
    for label, results in groups.items():
        if len({version for r in results for version in r.versions}) > 1:
            by_seed = [f"seed {r.config.seed} by {' and '.join(r.versions)}" for r in results]
            counted = Counter(by_seed).items()  # seeds come again where there are several rows
            runs = [f"{each} ({n} runs)" if n > 1 else each for each, n in counted]
            different = "different versions of codistill trained the runs of"
            notes.append(f"{different} {label!r}: {', '.join(runs)}")
    return notes


def load_result(path: Path) -> Result:
    """What came out of the finished run in a folder."""
    for name in ("config.yaml", "result.json"):
        if not (path / name).exists():
            state = "no run" if name == "config.yaml" else "a run that is not finished"
            raise InputError(f"{path} holds {state}: there is no {name} in it")
    history = read_history(path)
    try:
        manifest = files.read_json(path / "manifest.json")
        summary = files.read_json(path / "result.json")
        kept_top1(summary)  # so that a file of another version is named
        _check(history, summary["epochs"], manifest)
        return Result(
            path=path,
            config=Config.from_yaml((path / "config.yaml").read_text()),
            summary=summary,
            history=history,
            parameters=manifest["parameters"],
            fingerprint=manifest["data"]["fingerprint"],
            networks=manifest.get("networks", {}),
            weights=manifest.get("weights", []),
            students=manifest.get("students", {}),
            versions=_versions(manifest),
            manifest=manifest,
        )
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:  # InputError is a ValueError
        raise InputError(f"{path} is damaged: {error}") from error


def _check(history: list[Any], epochs: int, manifest: dict[str, Any]) -> None:
    """Raises InputError where files do not hold what is read of them later."""
    if len(history) != epochs:
        raise InputError(f"history.jsonl has {len(history)} epochs, result.json {epochs}")
    for key in ("peers", "method"):
        if not isinstance(manifest["parameters"].get(key), int):
            raise InputError(f"manifest.json does not tell the parameters of {key!r}")
    if not all(isinstance(n, int) for n in manifest.get("images", {}).values()):
        raise InputError("manifest.json does not tell how many images there are")
    if not all(isinstance(process, dict) for process in manifest.get("processes", [])):
        raise InputError("manifest.json does not tell its processes")


def _versions(manifest: dict[str, Any]) -> tuple[str, ...]:
    """Those that made a run and went on with it, each once, in this order."""
    processes = manifest.get("processes", [])
    packages = [process.get("packages", {}).get("codistill") for process in processes]
    first = (manifest.get("git") or {}).get("codistill")
    commits = [process.get("git", first) for process in processes] or [first]
    found = []
    for git, package in zip(commits, packages or [None], strict=True):
        if git:
            found.append(git["commit"][:9] + (" with changes" if git["changed"] else ""))
        elif package:
            found.append(package)
    return tuple(dict.fromkeys(found))


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
