"""Finished runs, read from their folders and grouped: runs that differ only in the seed."""

import contextlib
import functools
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from codistill import files
from codistill.errors import InputError
from codistill.files import reading
from codistill.messages import note
from codistill.runs import checkpoints
from codistill.runs.folder import read_config
from codistill.runs.history import HISTORY, digest_of, read_history, write_history
from codistill.runs.manifest import Manifest
from codistill.runs.results import (
    RESULT,
    Epoch,
    Metrics,
    RunScores,
    last_five,
    out_of_patience,
)
from codistill.settings.build_method import network_files
from codistill.settings.config import Config
from codistill.settings.keeping import names_kept
from codistill.settings.start_files import start_fingerprints
from codistill.training.record import Record


@dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
        path: its folder.
        config: its settings, resolved.
        scores: the scores of its classifiers.
        history: one record for each epoch.
        manifest: where it comes from: command, machines, classes, numbers of images.
        left_out: classifiers that other seeds of its setting lack, and that are not compared.
    """

    path: Path
    config: Config
    scores: RunScores
    history: list[Record]
    manifest: Manifest
    left_out: tuple[str, ...] = ()

    @property
    def recipe(self) -> dict[str, Any]:
        """The settings that it has in common with its other seeds; see `recipe_of`."""
        m = self.manifest
        return recipe_of(self.config, m.fingerprint, m.networks, m.weights)

    @property
    def test_images(self) -> tuple[str, float | None, int | None]:
        """Identity of the test images: fingerprint, and share and seed of their draw, if any.

        The configuration of a run has a `data.test_fraction` only if the data had no test images
        of their own.
        """
        data = self.config.data
        drawn = data.test_fraction is not None
        return self.manifest.fingerprint, data.test_fraction, data.split_seed if drawn else None

    @functools.cached_property
    def last_five(self) -> dict[str, Metrics]:
        """The mean metrics of each classifier over the last five epochs, if there are ten."""
        return last_five(self.history)

    def accuracy(self, epoch: Epoch, classifier: str) -> float | None:
        """Test accuracy in % of a classifier, or of the "mean peer"; None if it was not measured.

        Args:
            epoch: the last one, the last five, or the one that the held-out images chose.
            classifier: the name of one of `scores.last`.
        """
        if epoch == "last_five":
            return self.scores.accuracy_in(self.last_five, classifier)
        return self.scores.accuracy(epoch, classifier)

    @property
    def student_peer(self) -> str | None:
        """The name of the peer that is the named student; None where none is named."""
        c = self.config
        return c.student and f"peer{c.networks().index(c.student)}"

    @property
    def label(self) -> str:
        """The setting in a few words, such as "ffl resnet20 x2 shared 2"."""
        c = self.config
        shared = f" shared {c.shared}" if c.shared else ""
        return f"{c.method['name']} {c.network} x{c.peers}{shared}"


def load_results(paths: Sequence[Path]) -> dict[str, list[Result]]:
    """The finished runs in these folders, grouped by setting: {label: results by seed}."""
    groups: dict[str, list[Result]] = defaultdict(list)
    for path in paths:
        r = load_result(path)
        groups[json.dumps(r.recipe, sort_keys=True)].append(r)
    for results in groups.values():
        seeds = [r.config.seed for r in results]
        if len(set(seeds)) < len(seeds):
            where = ", ".join(str(r.path) for r in results)
            raise InputError(f"{where} are one setting with seeds {seeds}: give each seed once")
    settings = [dict(sorted(results[0].recipe.items())) for results in groups.values()]
    labels = _distinct([results[0].label for results in groups.values()], settings)
    return {
        label: in_common(sorted(results, key=lambda r: r.config.seed))
        for label, results in zip(labels, groups.values(), strict=True)
    }


def in_common(results: Sequence[Result]) -> list[Result]:
    """The seeds of a setting, with the classifiers that all of them have.

    They differ where the code of a method of one's own was changed between two seeds.

    Raises:
        InputError: a seed exports a classifier that another one lacks.
    """
    common = set.intersection(*(set(r.scores.last) for r in results)) if results else set()
    found = []
    for r in results:
        scores, left_out = r.scores, tuple(n for n in r.scores.last if n not in common)
        if scores.kept[0] in left_out:
            raise InputError(
                f"{r.path} exports {scores.kept[0]!r}, which other seeds of its setting do not "
                "have: the code of its method was changed between them. Report them one by one"
            )
        last, best = (
            {n: m for n, m in of.items() if n in common}
            for of in (scores.last, scores.best_by_validation)
        )
        scores = replace(scores, last=last, best_by_validation=best)
        found.append(replace(r, scores=scores, left_out=left_out))
    return found


def recipe_of(
    config: Config, fingerprint: str, networks: Mapping[str, str], weights: Sequence[str]
) -> dict[str, Any]:
    """The settings that the seeds of one row have in common, by names such as data.pad.

    Files stand by their content, so that it does not matter where they are.

    Args:
        config: resolved settings.
        fingerprint: fingerprint of the images, which takes the place of data.root.
        networks: fingerprints of the networks that the method was given, by option.
        weights: fingerprints of the files that the peers started from.
    """
    by_content: dict[str, Any] = {
        f"method.{option}": sha256[:8] for option, sha256 in networks.items()
    }
    by_content |= {"data.root": fingerprint, "weights": [w[:8] for w in weights] or None}
    return {
        key: by_content.get(key, list(value) if isinstance(value, tuple) else value)
        for key, value in config.recipe().items()
    }


def differences_from(
    run: Path, asked: Config, fingerprint: str | None = None, also: Sequence[str] = ()
) -> list[str]:
    """What tells a run from the settings that are asked for, such as "lr 0.1, not 0.05".

    Args:
        run: the folder of the run.
        asked: settings with the seed. A setting of None asks for nothing.
        fingerprint: fingerprint of the images that are asked for; None asks for nothing.
        also: settings beside recipe and seed that count too.
    """
    config, manifest = read_config(run), Manifest.read(run)
    there = recipe_of(config, manifest.fingerprint, manifest.networks, manifest.weights)
    wanted = recipe_of(
        asked,
        fingerprint or manifest.fingerprint,
        {option: files.sha256(file) for option, file in network_files(asked.method).items()},
        start_fingerprints(asked),
    )
    for name in ("seed", *also):
        there[name], wanted[name] = getattr(config, name), getattr(asked, name)
    return [
        f"{'data' if key == 'data.root' else key} {there.get(key)}, not {value}"
        for key, value in wanted.items()
        if value is not None and value != there.get(key)
    ]


def code_notes(groups: Mapping[str, Sequence[Result]]) -> list[str]:
    """Notes on runs of a row that were not all trained by the same code.

    A line for each row that several versions of codistill trained, with the version of each seed;
    and one for each run with classifiers that other seeds lack.
    """
    notes = []
    for label, results in groups.items():
        versions = [r.manifest.versions for r in results]
        if len({*chain(*versions)}) > 1:
            by_seed = [
                f"seed {r.config.seed} by {' and '.join(of)}"
                for r, of in zip(results, versions, strict=True)
            ]
            counted = Counter(by_seed).items()  # seeds come again where there are several rows
            runs = [f"{each} ({n} runs)" if n > 1 else each for each, n in counted]
            different = "different versions of codistill trained the runs of"
            notes.append(f"{different} {label!r}: {', '.join(runs)}")
        notes += [
            f"the run {r.path.name} also has {', '.join(r.left_out)}, which other seeds lack: left "
            "out. The code of the method was changed between them"
            for r in results
            if r.left_out
        ]
    return notes


def load_result(path: Path) -> Result:
    """Reads the finished run in a folder."""
    config = read_config(path)
    if not (path / RESULT).exists():
        raise InputError(f"{path} holds a run that is not finished: there is no {RESULT} in it")
    manifest = Manifest.read(path)
    try:
        history, scores = _read_results(path)
    except InputError as error:
        history, scores = _results_again(path, manifest, error)
    return Result(path, config, scores, history, manifest)


def _read_results(path: Path) -> tuple[list[Record], RunScores]:
    """The history and the scores of a run, which have to fit each other."""
    history, scores = read_history(path), RunScores.read(path)
    if len(history) != scores.epochs:
        raise InputError(
            f"{path} is damaged: {HISTORY} has {len(history)} epochs, {RESULT} {scores.epochs}"
        )
    if scores.history and digest_of(history) != scores.history:
        raise InputError(f"{path / HISTORY} is damaged: it is not the history that {RESULT} is of")
    return history, scores


def _results_again(
    path: Path, manifest: Manifest, error: InputError
) -> tuple[list[Record], RunScores]:
    """The history and the scores of a finished run, made anew from its last checkpoint.

    Args:
        path: the folder of the run.
        manifest: the manifest of the run.
        error: the error of the damaged file, which is raised if there is no such checkpoint.
    """
    try:
        history = checkpoints.last_history(path, manifest.id)
    except InputError:
        raise error from None
    if not manifest.students:
        raise error
    with reading(path, "folder of a run"):
        config = read_config(path)
        names = names_kept(config, manifest.students, manifest.parameters)
        if len(history) < config.epochs and not out_of_patience(history, names, config.patience):
            raise error
        scores = RunScores.of(history, names, manifest.images.get("val", 0))
    note(f"{error}; it is made anew from the last checkpoint")
    with contextlib.suppress(OSError):  # a folder that is not ours to write in
        write_history(path, history)
        scores.write(path)
    return history, scores


def _distinct(labels: list[str], settings: list[dict[str, Any]]) -> list[str]:
    """Labels made distinct: by the options that differ, or else by numbers."""
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
