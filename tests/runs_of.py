"""Runs of the tests: their folders, what is in them, and results without a folder."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch

from codistill.analysis.differences import Difference, differences
from codistill.runs.finished import Result
from codistill.runs.manifest import Manifest
from codistill.runs.results import Kept, RunScores
from codistill.runs.run import Run
from codistill.settings.config import Config
from codistill.settings.data_config import DataConfig
from codistill.tensor_files import read_state

_TIMES = ("seconds", "images_per_second")


def tiny_config(out: Path, **changes: object) -> Config:
    """FFL of two ResNet-8 on the digits, for two epochs; what differs is given by name."""
    settings: dict[str, object] = {
        "method": {"name": "ffl", "ramp_up": 1},
        "network": "resnet8",
        "shared": 2,
        "data": DataConfig(name="digits"),
        "epochs": 2,
        "batch_size": 128,
        "threads": 1,
        "out": str(out),
    }
    return Config(**settings | changes)  # type: ignore[arg-type]


def train(out: Path, **changes: object) -> Path:
    """Trains `tiny_config` to its end."""
    for _ in Run.create(tiny_config(out, **changes)).train():
        pass
    return out


@contextlib.contextmanager
def undrawn() -> Iterator[None]:
    """Figures stay empty, which spares a report seconds: for tests that look at the rest of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.draw", lambda *_: None)
        yield


@contextlib.contextmanager
def tables_only() -> Iterator[None]:
    """A report without its page, whose figures take seconds: for tests of the rest of it."""
    with undrawn(), pytest.MonkeyPatch.context() as patch:
        for module in ("codistill.reporting.comparison", "codistill.reporting.page.write"):
            patch.setattr(f"{module}.write_page", lambda *_, **__: [])
        yield


def untimed(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "history.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(x).items() if k not in _TIMES} for x in lines]


def assert_same_run(one: Path, other: Path) -> None:
    """The same bits: weights, students, optimizers, random numbers, and the log."""
    assert untimed(one) == untimed(other)
    names = sorted(p.name for p in one.glob("*.safetensors"))
    assert names == sorted(p.name for p in other.glob("*.safetensors"))
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    last = sorted((one / "checkpoints").glob("*.pt"))[-1].name
    states = [read_state(run / "checkpoints" / last) for run in (one, other)]
    for key in ("method", "optimizers", "rng", "epoch", "step"):
        torch.testing.assert_close(states[0][key], states[1][key], rtol=0, atol=0)


def progress_of(run: Path) -> list[str]:
    return sorted(p.name for p in run.glob("checkpoints/epoch*.pt"))


def changed(result: Result, **facts: object) -> Result:
    """A result with other scores, or other facts in its manifest."""
    of_scores = {f.name for f in fields(RunScores)}
    scores = {name: value for name, value in facts.items() if name in of_scores}
    rest = {name: value for name, value in facts.items() if name not in of_scores}
    return replace(
        result,
        scores=replace(result.scores, **scores),  # type: ignore[arg-type]
        manifest=replace(result.manifest, **rest),  # type: ignore[arg-type]
    )


def write_run(
    folder: Path,
    top1: list[float],
    seed: int = 0,
    best: float | None = None,
    fingerprint: str = "f",
    **settings: object,
) -> Path:
    """What a finished run of one peer leaves, as far as a report reads it; without seals."""
    folder.mkdir()
    made: dict[str, object] = {"method": {"name": "independent"}, "peers": 1, "seed": seed}
    config = Config(**made | settings)  # type: ignore[arg-type]
    (folder / "config.yaml").write_text(config.to_yaml())
    manifest = Manifest(
        command=["codistill", "train"],
        git={"codistill": None, "folder": None},
        data={"name": "digits", "fingerprint": fingerprint},
        classes=list("0123456789"),
        image_size=[8, 8],
        images={"train": 90, "test": 10},
        parameters={"peer0": 10, "peers": 10, "method": 0},
    )
    (folder / "manifest.json").write_text(json.dumps(asdict(manifest)))
    metrics = [{"test/top1": t, "test/top5": 90.0, "test/nll": 1.0} for t in top1]
    history = [
        {f"{k}/peer0": v for k, v in m.items()} | {"epoch": e, "loss/ce": 1.0 / e}
        for e, m in enumerate(metrics, 1)
    ]
    (folder / "history.jsonl").write_text("".join(json.dumps(r) + "\n" for r in history))
    summary = {
        "epochs": len(top1),
        "last": {"peer0": metrics[-1]},
        "best_by_validation": {"peer0": metrics[-1] | {"test/top1": best}} if best else {},
        "images_per_second": 100.0,
        "seconds": 1.0,
        "student": {"last": "peer0", "best": "peer0" if best else None, "best_epoch": None},
    }
    (folder / "result.json").write_text(json.dumps(summary))
    return folder


def result_of(
    classifiers: dict[str, float],
    seed: int = 0,
    students: dict[str, int] | None = None,
    best: dict[str, float] | None = None,
    networks: dict[str, str] | None = None,
    history: list[dict[str, float]] | None = None,
) -> Result:
    def measured(values: dict[str, float]) -> dict[str, dict[str, float]]:
        return {name: {"test/top1": value} for name, value in values.items()}

    manifest = Manifest(
        command=[],
        git={},
        data={"fingerprint": "f"},
        classes=[],
        image_size=[8, 8],
        images={},
        parameters={"peers": 0, "method": 0},
        students=students or {"peer0": 0, "peer1": 1},
        networks=networks or {},
    )
    return Result(
        path=Path("run"),
        config=Config(method={"name": "independent"}, seed=seed),
        scores=RunScores(
            epochs=0,
            last=measured(classifiers),
            best_by_validation=measured(best or {}),
            student=Kept(next(iter(classifiers)), None, None),
            images_per_second=1.0,
            seconds=1.0,
        ),
        history=history or [],
        manifest=manifest,
    )


def ended_with(values: dict[str, float], more: float, seed: int = 0) -> Result:
    """A result of ten epochs: these values, and in the last five the same and `more`."""
    history = [
        {f"test/top1/{name}": value + (more if epoch >= 5 else 0) for name, value in values.items()}
        for epoch in range(10)
    ]
    return result_of(values, seed, history=history)


def found_in(**rows: dict[int, Result]) -> dict[tuple[str, str, str], Difference]:
    baselines = dict.fromkeys(rows, "independent")
    found = differences(rows, baselines)
    return {(d.label, d.classifier, d.epoch): d for d in found}


def plus(values: dict[str, float], more: float, **others: float) -> dict[str, float]:
    return {name: value + more for name, value in values.items()} | others
