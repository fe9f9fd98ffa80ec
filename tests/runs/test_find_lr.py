"""The learning-rate range test: what it tries, where it ends, and what it suggests."""

import csv
import math
from pathlib import Path

import pytest
from commands_of import codistill
from runs_of import tiny_config

from codistill.runs.find_lr import STEPS, Step, range_test, suggested
from codistill.runs.new_run import prepare

OPTIONS = "--network resnet8 --shared 2 --batch_size 16 --threads 1 --lr 0.1 --out run"


def of_losses(*losses: float) -> list[Step]:
    return [Step(10.0 ** (i - 4), loss, loss) for i, loss in enumerate(losses)]


@pytest.mark.parametrize(
    ("losses", "rate"),
    [
        ((3.0, 2.9, 2.5, 1.0, 0.9, 5.0), 1e-2),  # the fall from 2.9 to 1.0 is around 1e-2
        ((3.0, 2.9, 2.8, 2.7, 0.5, 9.0), 1e-1),
        ((3.0, 2.99, 2.98, 2.97, 9.0), None),  # hardly a fall
        ((3.0, 3.5, 4.0), None),
        ((), None),
    ],
)
def test_the_rate_of_the_fastest_fall_is_suggested(
    losses: tuple[float, ...], rate: float | None
) -> None:
    assert suggested(of_losses(*losses)) == (rate and pytest.approx(rate))


@pytest.mark.long
def test_it_tries_rates_around_that_of_the_settings_and_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codistill.runs.find_lr.STEPS", 40)
    done = codistill("train", "digits", *OPTIONS.split(), "--find_lr", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("suggestion: --lr 0.")
    assert done.stdout.endswith("table: run.find_lr.csv\n")
    assert [path.name for path in tmp_path.iterdir()] == ["run.find_lr.csv"]
    with (tmp_path / "run.find_lr.csv").open() as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    assert rows[0]["lr"] == pytest.approx(1e-4)
    assert rows[1]["lr"] / rows[0]["lr"] == pytest.approx(1e5 ** (1 / 39), rel=1e-3)
    best = float(done.stdout.split()[2])
    lowest = min(rows, key=lambda row: row["smooth"])
    assert rows[0]["lr"] < best < lowest["lr"]
    middle = [row["loss"] for row in rows[7:14]]
    assert rows[10]["smooth"] == pytest.approx(sum(middle) / 7, rel=1e-3)


def test_it_ends_where_training_diverges_or_when_it_is_asked_to(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run", lr=10.0, batch_size=16)
    steps = range_test(prepare(config))
    assert 3 < len(steps) < STEPS
    assert all(math.isfinite(step.loss) for step in steps)
    assert len(range_test(prepare(config), lambda: True)) == 1
    assert list(tmp_path.iterdir()) == []


def test_it_is_for_a_run_that_has_not_begun(tmp_path: Path) -> None:
    done = codistill("train", "digits", "--find_lr", "--resume", "auto", cwd=tmp_path)
    assert done.returncode == 2
    assert "--find_lr is for a run that has not begun: leave out --resume" in done.stderr
