"""What is paired with what, what is left out, and the tables of it."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from runs_of import ended_with, found_in, plus, result_of

from codistill.analysis.differences import conclusion, differences, missing_seeds
from codistill.analysis.paired import shown_from
from codistill.reporting.difference_tables import print_differences, write_differences
from codistill.runs.finished import Result
from codistill.settings.config import Config

ALONE = {"peer0": 60.0, "peer1": 62.0, "ensemble": 66.0}


def test_one_network_is_compared_with_one_and_several_with_several() -> None:
    own = {
        "peer0": 61.0,
        "peer1": 64.0,
        "ensemble": 65.0,
        "fused": 67.0,
        "leader": 64.5,
        "mean_teacher0": 59.0,
        "teacher": 80.0,
    }
    students = {"leader": 1, "mean_teacher0": 0}
    method = result_of(own, students=students, networks={"teacher": "sha"})
    found = found_in(independent={0: result_of(ALONE)}, own={0: method})
    assert {(c, d.against, d.kind, d.statistics.mean) for (_, c, _), d in found.items()} == {
        ("mean peer", "mean peer", "mean peer", 1.5),
        ("peer0", "peer0", "peer", 1.0),
        ("peer1", "peer1", "peer", 2.0),
        ("ensemble", "ensemble", "ensemble", -1.0),
        ("fused", "ensemble", "its own", 1.0),
        ("leader", "peer1", "its own", 2.5),
        ("mean_teacher0", "peer0", "its own", -1.0),
    }


def test_a_single_network_is_the_bar_where_there_is_no_ensemble() -> None:
    found = found_in(
        independent={0: result_of({"peer0": 60.0})}, own={0: result_of({"peer0": 61.0, "x": 63.0})}
    )
    assert (found["own", "x", "last"].against, found["own", "x", "last"].statistics.mean) == (
        "peer0",
        3.0,
    )


def test_pairs_are_of_one_seed() -> None:
    alone = {s: result_of(plus(ALONE, s), seed=s) for s in (2, 0, 1)}
    better = {s: result_of(plus(ALONE, s + d), seed=s) for s, d in ((0, 1.0), (1, 2.0), (2, 4.0))}
    d = found_in(independent=alone, own=better)["own", "mean peer", "last"]
    assert d.seeds == (0, 1, 2)
    assert d.statistics.differences == (1.0, 2.0, 4.0)


def test_a_seed_that_one_side_lacks_makes_no_pair_and_is_told() -> None:
    alone = {s: result_of(ALONE, seed=s) for s in (0, 1)}
    own = {s: result_of(plus(ALONE, 1.0 + s), seed=s) for s in (1, 2)}
    d = found_in(independent=alone, own=own)["own", "peer0", "last"]
    assert (d.seeds, d.statistics.n, d.statistics.mean) == ((1,), 1, 2.0)
    assert missing_seeds({"independent": alone, "own": own}, [0, 1, 2]) == [
        "independent: seed 2 missing",
        "own: seed 0 missing",
    ]


def test_rows_without_a_common_seed_are_not_compared() -> None:
    assert not found_in(independent={0: result_of(ALONE)}, own={1: result_of(ALONE, seed=1)})
    assert not found_in(independent={}, own={1: result_of(ALONE, seed=1)})


def test_the_best_epoch_is_compared_with_the_best_epoch() -> None:
    alone = result_of(ALONE, best=plus(ALONE, 5.0))
    own = result_of(plus(ALONE, 1.0), best=plus(ALONE, 8.0))
    found = found_in(independent={0: alone}, own={0: own})
    assert found["own", "peer0", "last"].statistics.mean == 1.0
    assert found["own", "peer0", "best_by_validation"].statistics.mean == 3.0


def test_the_last_five_epochs_are_compared_with_the_last_five() -> None:
    alone = {s: ended_with(ALONE, 0.0, s) for s in range(3)}
    own = {s: ended_with(plus(ALONE, 1.0), 2.0 + s, s) for s in range(3)}
    found = found_in(independent=alone, own=own)
    five = found["own", "mean peer", "last_five"]
    assert five.statistics.differences == pytest.approx((3.0, 4.0, 5.0))
    assert found["own", "mean peer", "last"].statistics.mean == 1.0
    assert five.comparisons == 1  # corrected apart from those of the last epoch
    short = found_in(independent={0: result_of(ALONE)}, own={0: result_of(ALONE)})
    assert {epoch for _, _, epoch in short} == {"last"}


def test_the_last_five_epochs_stand_in_the_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = {s: ended_with(ALONE, 0.0, s) for s in range(3)}
    own = {s: ended_with(plus(ALONE, 1.0), 2.0 + s, s) for s in range(3)}
    found = list(found_in(independent=alone, own=own).values())
    write_differences(found, [], [], tmp_path)
    head, _, line = (tmp_path / "differences.md").read_text().splitlines()[:3]
    cells = dict(zip(head.split(" | "), line.split(" | "), strict=True))
    assert cells["last 5 epochs: difference [95 % CI]"] == "+4.00 [+1.52, +6.48]"
    assert cells["by validation: difference [95 % CI]"] == "-"
    print_differences({"alone": list(alone.values())}, found, [])
    said = capsys.readouterr().out
    assert " ".join(said.split("\n")[0].split()) == "classifier last epoch last 5 p verdict n"
    assert "last 5: the mean over the last five epochs." in " ".join(said.split())
    assert "+4.00 [+1.5, +6.5]" in said
    assert max(map(len, said.splitlines())) <= 80


def test_what_was_not_measured_in_every_run_is_not_compared() -> None:
    alone = {s: result_of(ALONE, seed=s, best=ALONE) for s in (0, 1)}
    own = {0: result_of(ALONE, best=ALONE), 1: result_of(ALONE, seed=1, best={"peer0": 70.0})}
    found = found_in(independent=alone, own=own)
    assert ("own", "peer0", "best_by_validation") in found
    for classifier in ("mean peer", "peer1", "ensemble"):
        assert ("own", classifier, "last") in found
        assert ("own", classifier, "best_by_validation") not in found


def test_p_values_are_corrected_for_the_comparisons_of_a_kind() -> None:
    alone = {s: result_of(ALONE, seed=s) for s in range(3)}
    shifts = {"one": (1.0, 1.1, 1.2), "two": (1.0, 2.0, 3.0), "equal": (1.0, 1.0, 1.0)}
    rows = {
        name: {s: result_of(plus(ALONE, shift[s]), seed=s) for s in range(3)}
        for name, shift in shifts.items()
    }
    found = found_in(independent=alone, **rows)
    one, two = found["one", "mean peer", "last"], found["two", "mean peer", "last"]
    assert one.statistics.p is not None
    assert one.comparisons == 2  # equal differences cannot be tested
    assert one.p == pytest.approx(2 * one.statistics.p)
    assert (one.verdict, two.verdict) == ("helped", "undecided")
    assert found["equal", "mean peer", "last"].verdict == "-"
    assert found["one", "peer0", "last"].comparisons == 4  # two peers of two methods
    assert found["one", "peer0", "last"].p == pytest.approx(4 * one.statistics.p)


def test_what_is_worse_hurt() -> None:
    alone = {s: result_of(ALONE, seed=s) for s in range(3)}
    own = {s: result_of(plus(ALONE, -1.0 - s / 10), seed=s) for s in range(3)}
    assert found_in(independent=alone, own=own)["own", "mean peer", "last"].verdict == "hurt"


def test_the_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    alone = {s: result_of(ALONE, seed=s, best=ALONE) for s in range(3)}
    better = {s: plus(ALONE, s + 1.0, mean_teacher12=99.0) for s in range(3)}
    own = {s: result_of(better[s], seed=s, best=plus(ALONE, 30.0 * s)) for s in range(3)}
    rows = {"independent": alone, "a method with a long name, resnet110": own}
    found = differences(rows, dict.fromkeys(rows, "independent"))
    write_differences(found, ["a note"], ["a figure"], tmp_path)
    text = (tmp_path / "differences.md").read_text()
    half = "+2.00 [-0.48, +4.48] | 1.00 | +1.13 | 0.074 | undecided"
    best = "+30.00 [-44.52, +104.52] | 30.00 | +0.56 | 0.225 | undecided"
    assert (
        f"| a method with a long name, resnet110 | mean peer | mean peer | 3 | {half} | {best} |"
    ) in text
    assert "mean_teacher12 | ensemble | 3 |" in text
    assert "- a note\n" in text
    assert "- a figure\n" in text
    with (tmp_path / "differences.csv").open() as file:
        line = next(csv.DictReader(file))
    assert (line["seeds"], line["differences"]) == ("0 1 2", "1.0000 2.0000 3.0000")
    assert [float(line[k]) for k in ("mean", "sd", "ci_low", "p", "p_holm")] == pytest.approx(
        [2.0, 1.0, -0.484138, 0.0741799, 0.0741799]
    )
    print_differences({"independent": list(alone.values())}, found, ["a note"])
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert "…" not in printed
    assert "61.00 ± 0.00" in printed
    assert "+2.00 [-0.5, +4.5]" in printed
    assert "+30.00 [-45, +105]" in printed
    assert "note: a note" in printed


def test_one_pair_shows_no_interval(tmp_path: Path) -> None:
    rows = {"independent": {0: result_of(ALONE)}, "own": {0: result_of(plus(ALONE, 1.0))}}
    write_differences(differences(rows, dict.fromkeys(rows, "independent")), [], [], tmp_path)
    text = (tmp_path / "differences.md").read_text()
    assert "| own | peer0 | peer0 | 1 | +1.00 | - | - | - | - | - | - | - | - | - |" in text
    assert json.dumps(text).count("nan") == 0


def of_peers(**means: list[float]) -> list:
    alone = {s: result_of(ALONE, seed=s) for s in range(3)}
    rows = {
        label: {s: result_of(plus(ALONE, d), seed=s) for s, d in enumerate(values)}
        for label, values in means.items()
    }
    return list(found_in(independent=alone, **rows).values())


def test_the_conclusion_says_what_is_shown_and_what_had_to_be() -> None:
    found = of_peers(good=[5.0, 5.1, 4.9], bad=[-5.0, -5.1, -4.9], open=[1.0, -1.0, 0.0])
    # t(0.975, 2) = 4.3027, times 0.1 / sqrt(3) and 1 / sqrt(3)
    assert conclusion(found, 1234, alone=61.0) == (
        "good (+5.00 [+4.8, +5.2]) helped the peers; bad (-5.00 [-5.2, -4.8]) hurt the peers; not "
        "shown to help or to hurt: open (0.00 [-2.5, +2.5]). With 3 seeds on 1,234 test images, a "
        "mean difference had to reach about 2.5 points to be shown. An accuracy of 61 % on 1,234 "
        "images is itself uncertain by about 2.7 points."  # 1.96 sqrt(61 * 39 / 1234) = 2.72
    )
    of_few = conclusion(found, 32, alone=61.0)
    # sqrt(61 * 39 / 32) * 1.96 = 16.9
    assert of_few.endswith(
        "An accuracy of 61 % on 32 images is itself uncertain by about 16.9 points."
    )
    assert "uncertain" not in conclusion(found, 10_000, alone=61.0)  # less than what seeds show


def test_what_differences_had_to_be_follows_each_spread() -> None:
    """What is shown does not count, and the spread of one method is not that of another."""
    some = {"steady": [2.4, 2.8, 3.2], "even": [0.7, 1.7, 2.0], "wide": [0.2, 2.0, 1.8]}
    both = conclusion(of_peers(**some), 10_000, alone=51.0)
    assert both.startswith("steady (+2.80 [+1.8, +3.8]) helped the peers; not shown to help or to")
    # sd = 0.68069 and 0.98658; t(1 - 0.05 / 4, 2) = 6.2053, times sd / sqrt(3)
    assert both.endswith(
        "With 3 seeds on 10,000 test images, a mean difference had to reach about 2.4 (even) to "
        "3.5 points (wide) to be shown."
    )
    equal = conclusion(of_peers(a=[0.0, 1.0, -1.0], b=[1.0, 0.0, -1.0]))
    assert f"to reach about {6.2053 / 3**0.5:.1f} points to be" in equal
    shown = conclusion(of_peers(steady=some["steady"]), 10_000, alone=51.0)
    assert shown == "steady (+2.80 [+1.8, +3.8]) helped the peers."
    of_few = conclusion(of_peers(steady=some["steady"]), 1_000, alone=51.0)
    assert (
        of_few
        == f"{shown} An accuracy of 51 % on 1,000 images is itself uncertain by about 3.1 points."
    )


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_what_is_not_shown_is_below_what_it_had_to_be(spread: float) -> None:
    """And what is shown would be above: no number contradicts a verdict."""
    found = of_peers(
        a=[2.0, 2.6, 2.3], b=[2.0 - spread, 2.1, 2.0 + spread], c=[3.0, 3.0 + spread, 2.9]
    )
    last = [d for d in found if d.kind == "mean peer" and d.epoch == "last"]
    undecided = [d.statistics for d in last if d.verdict == "undecided"]
    for one, needed in zip(undecided, shown_from(undecided), strict=True):
        assert needed is not None
        assert abs(one.mean) < needed
    for d in last:
        if d.verdict == "helped":
            needed = shown_from([d.statistics])[0]
            assert needed is not None
            assert abs(d.statistics.mean) >= needed


def test_methods_that_cannot_be_tested_are_named() -> None:
    fewer = conclusion(of_peers(open=[1.0, -1.0, 0.0], two=[1.0, 2.0], one=[4.0]))
    # t(1 - 0.05 / 4, 2) = 6.2053, sd = 1; t(1 - 0.05 / 4, 1) = 25.452, sd = 0.70711
    assert fewer.endswith(
        f"With 2 to 3 seeds, a mean difference had to reach about {6.2053 / 3**0.5:.1f} (open) to "
        f"{25.452 * 0.5:.1f} points (two) to be shown. One seed, or seeds without spread, cannot "
        "show a difference: one."
    )
    steady = conclusion(of_peers(steady=[2.4, 2.8, 3.2], one=[0.7], zero=[0.0, 0.0, 0.0]), 10_000)
    assert steady.endswith(
        "hurt: one (+0.70), zero (0.00). One seed, or seeds without spread, on 10,000 test images, "
        "cannot show a difference: one, zero."
    )
    most = conclusion(of_peers(good=[5.0, 5.1, 4.9], two=[1.0, 2.0]))
    assert "With 2 seeds, a mean" in most  # those of what is shown do not count


def test_the_conclusion_of_nothing_shown_is_plain() -> None:
    text = conclusion(of_peers(open=[1.0, -1.0, 0.0]))
    assert text.startswith(
        "No method is shown to help or to hurt the peers: open (0.00 [-2.5, +2.5]). With 3 seeds, "
    )
    # t(0.975, 2) = 4.3027
    assert f"had to reach about {4.3027 / 3**0.5:.1f} points" in text
    one = conclusion(of_peers(one=[1.0]), 32, alone=80.0)
    assert (
        "hurt the peers: one (+1.00). One seed, or seeds without spread, on 32 test images, " in one
    )
    assert one.endswith("accuracy of 80 % on 32 images is itself uncertain by about 13.9 points.")
    assert conclusion([]).startswith("No method has a finished run beside the networks alone")


def with_student(values: dict[str, float], networks: str, seed: int) -> Result:
    """A result of three peers, one of them the student `small`."""
    config = Config(method={"name": "x"}, peers=3, student="small", network=networks, seed=seed)
    return replace(result_of(values, seed=seed), config=config)


def test_a_named_student_is_compared_with_itself_wherever_it_stands() -> None:
    """A method may keep its last peer, and the student stands there: its company moves up."""
    alone, own = {}, {}
    for seed, gain in enumerate((2.0, 2.1, 1.9)):
        values = {"peer0": 50.0 + seed, "peer1": 60.0, "peer2": 70.0}
        alone[seed] = with_student(values, "small,large,larger", seed)
        moved = {"peer0": 60.5, "peer1": 71.5, "peer2": 50.0 + seed + gain}
        own[seed] = with_student(moved, "large,larger,small", seed)
    found = found_in(independent=alone, own=own)
    last = {c: d for (_, c, epoch), d in found.items() if epoch == "last"}
    assert {c: (d.kind, d.against, round(d.statistics.mean, 6)) for c, d in last.items()} == {
        "mean peer": ("mean peer", "mean peer", pytest.approx(4 / 3)),
        "peer0": ("peer", "peer1", 0.5),
        "peer1": ("peer", "peer2", 1.5),
        "peer2": ("student", "peer0", 2.0),
    }
    assert last["peer2"].comparisons == 1
    assert conclusion(list(found.values())).startswith(
        "own (+2.00 [+1.8, +2.2]) helped the student."
    )


def test_the_conclusion_is_first_in_the_file_and_last_on_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = of_peers(open=[1.0, -1.0, 0.0])
    write_differences(found, ["a note"], [], tmp_path, "In short.")
    assert (tmp_path / "differences.md").read_text().startswith("In short.\n\n| setting")
    print_differences({}, found, ["a note"], "In short.")
    assert capsys.readouterr().out.endswith("note: a note\nIn short.\n")
