"""What a sweep chooses, and what it says of it."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from runs_of import result_of

from codistill.analysis.sweeps import Sweep, choice_in_words, sweep
from codistill.reporting.sweep_tables import print_sweeps, write_sweeps
from codistill.runs.finished import Result
from codistill.settings.config import Config


def result(seed: int, *held_out: float, student: str | None = None) -> Result:
    """A run whose test accuracies are 100 minus those on the held-out images."""
    r = result_of({f"peer{k}": 100 - value for k, value in enumerate(held_out)}, seed=seed)
    for k, value in enumerate(held_out):
        r.scores.last[f"peer{k}"]["val/top1"] = value
    config = Config(peers=len(held_out), student=student, network="large", seed=seed)
    return replace(r, config=config if student else r.config)


def swept(**accuracies: list[float]) -> Sweep:
    """A sweep of the learning rate with one held-out accuracy per seed: lr_3 is 0.3."""
    rows = [
        (name, {"lr": int(name[3:]) / 10}, {s: result(s, a, a) for s, a in enumerate(values)})
        for name, values in accuracies.items()
    ]
    found = sweep("dml", rows)
    assert found
    return found


def test_the_held_out_images_choose_the_best_mean_and_the_test_images_nothing() -> None:
    s = swept(lr_1=[70.0, 72.0], lr_2=[75.0, 73.0], lr_3=[74.0, 74.0])
    assert (s.chosen.label, s.following.label, s.seeds, s.of) == (
        "lr_2",
        "lr_3",
        (0, 1),
        "mean peer",
    )
    assert s.chosen.accuracies == (75.0, 73.0)  # the first of two that are equal


def test_of_a_named_student_its_own_accuracy_counts() -> None:
    rows = [
        ("a", {"lr": 1}, {0: result(0, 60.0, 90.0, student="small")}),
        ("b", {"lr": 2}, {0: result(0, 70.0, 50.0, student="small")}),
    ]
    s = sweep("dml", rows)
    assert s
    assert (s.of, s.chosen.label, s.chosen.accuracies) == ("student", "b", (70.0,))


def test_only_seeds_count_that_are_finished_with_every_value() -> None:
    rows = [
        ("a", {"lr": 1}, {0: result(0, 60.0), 1: result(1, 99.0)}),
        ("b", {"lr": 2}, {0: result(0, 70.0)}),
    ]
    s = sweep("dml", rows)
    assert s
    assert (s.seeds, s.chosen.label) == ((0,), "b")
    assert sweep("dml", [*rows, ("c", {"lr": 3}, {})]) is None


def test_the_choice_in_words() -> None:
    s = swept(lr_1=[70.0, 71.0, 72.0], lr_2=[70.0, 72.0, 71.0], lr_3=[75.0, 74.0, 78.0])
    # Differences to the next: 5, 3, 6 or 5, 2, 7; the first of two means: sd 1.5275;
    # t(0.975, 2) = 4.3027, times 1.5275 / sqrt(3)
    assert choice_in_words([s], 40) == (
        "By the held-out images, the best values are: dml, lr=0.3 (75.7 %, 4.7 points more than "
        "lr=0.1). At the edge of what was tried: dml, lr=0.3. With 3 seeds on 40 held-out images, "
        "of which one is 2.5 points, a mean difference between two values had to reach about 3.8 "
        "points to be shown."
    )
    assert "edge" not in choice_in_words([swept(lr_1=[70.0, 71.0], lr_2=[75.0, 74.0])], 40)
    middle = swept(lr_1=[70.0, 71.0], lr_2=[75.0, 74.0], lr_3=[70.0, 71.0])
    assert "edge" not in choice_in_words([middle], 40)
    edge = choice_in_words([swept(lr_1=[70.0], lr_2=[72.0], lr_3=[75.0])], 40)
    assert "At the edge of what was tried: dml, lr=0.3. One seed" in edge
    one = choice_in_words([swept(lr_1=[70.0], lr_2=[75.0])], 40)
    assert one.endswith(
        "One seed, or seeds without spread, on 40 held-out images, of which one is 2.5 points, "
        "cannot show a difference: dml."
    )


def test_methods_with_fewer_seeds_need_more() -> None:
    three = swept(lr_1=[70.0, 71.0, 72.0], lr_2=[75.0, 74.0, 78.0])
    two = replace(swept(lr_1=[70.0, 71.0], lr_2=[75.0, 74.0]), method="ffl")
    text = choice_in_words([two, three], 40)
    assert " With 2 to 3 seeds on 40 " in text
    assert "(dml) to" in text
    assert text.endswith("points (ffl) to be shown.")


def test_the_table_has_every_value_and_each_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    s = swept(lr_1=[70.0, 72.0], lr_3=[75.0, 74.0])
    other = replace(s, method="ffl", tried=tuple(replace(t, values={"x": 1}) for t in s.tried))
    write_sweeps([s, other], "In short.", tmp_path)
    text = (tmp_path / "sweep.md").read_text()
    assert text.startswith("In short.\n\n| method |")
    assert "| dml | lr=0.1 | 71.00 ± 1.41 |  | 2 |" in text
    assert "| dml | lr=0.3 | 74.50 ± 0.71 | chosen | 2 |" in text
    with (tmp_path / "sweep.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(x["lr"], x["seed"], x["held_out_top1"], x["chosen"]) for x in lines[:4]] == [
        ("0.1", "0", "70.0000", "0"),
        ("0.1", "1", "72.0000", "0"),
        ("0.3", "0", "75.0000", "1"),
        ("0.3", "1", "74.0000", "1"),
    ]
    assert (lines[4]["lr"], lines[4]["x"], lines[0]["x"]) == ("", "1", "")
    print_sweeps([s], "In short.")
    printed = capsys.readouterr().out
    assert "  lr=0.3      74.50 ± 0.71  chosen  2\n" in printed
    assert printed.endswith("In short.\n\n")
