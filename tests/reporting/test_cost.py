"""What a page says of cost: of a network in use, and of the training that made it."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from runs_of import changed, train, undrawn, write_run

from codistill.reporting.page.measure import MeasureOptions, _step_flops
from codistill.reporting.page.parts import Fold, Section, Table
from codistill.reporting.page.sections.cost import _used, accuracy_and_cost
from codistill.reporting.page.setting import settings_of
from codistill.runs.finished import load_results
from codistill.runs.results import Kept

EVERY = MeasureOptions()


def costs(section: Section) -> dict[tuple[str, str], dict[str, str]]:
    """The table of costs: the cells of a row by their column, by setting and what is used."""
    parts = [
        p for part in section.parts for p in (part.parts if isinstance(part, Fold) else [part])
    ]
    (table,) = [part for part in parts if isinstance(part, Table)]
    rows = [dict(zip(table.head, map(str, row), strict=True)) for row in table.rows]
    return {(row["#"], row["used"]): row for row in rows}


def test_seeds_that_keep_peers_of_different_size_have_no_one_cost(tmp_path: Path) -> None:
    (setting,) = settings_of(load_results([write_run(tmp_path / "0", [50.0])]))
    first = changed(
        setting.results[0],
        parameters={"peer0": 10, "peer1": 11, "peers": 21, "method": 0},
        flops={"peer0": 5, "peer1": 6},
        students={"peer0": 0, "peer1": 1},
    )
    other = changed(first, last={"peer1": {"test/top1": 51.0}}, student=Kept("peer1", None, None))
    for results, expected in (((first,), (10, 5)), ((first, other), (None, None))):
        kept = _used(replace(setting, results=results))[0]
        assert (kept.parameters, kept.flops) == expected


def test_a_leader_costs_as_much_as_the_peer_that_it_copies(tmp_path: Path) -> None:
    (setting,) = settings_of(load_results([write_run(tmp_path / "0", [50.0])]))
    last = {"peer0": {"test/top1": 50.0}, "leader": {"test/top1": 55.0}}
    leader = changed(
        setting.results[0],
        last=last,
        student=Kept("leader", None, None),
        parameters={"peer0": 10, "peer1": 20, "leader": 20, "peers": 30, "method": 0},
        flops={"peer0": 5, "peer1": 6},
        students={"leader": 1},
    )
    (kept,) = _used(replace(setting, results=[leader]))
    assert (kept.parameters, kept.flops, kept.top1) == (20, 6, [55.0])
    early = changed(leader, flops={}, students={})
    (kept,) = _used(replace(setting, results=[early]))
    assert (kept.parameters, kept.flops, kept.top1) == (20, None, [55.0])


def test_a_run_that_does_not_record_its_flops_is_named(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / str(lr), [50.0], lr=lr) for lr in (0.1, 0.2)]
    first, second = settings_of(load_results(runs))
    counted = replace(first, results=[changed(first.results[0], flops={"peer0": 5})])
    assert accuracy_and_cost([counted]).missing == []
    assert accuracy_and_cost([counted, second]).missing == [
        f"FLOPs of {second.title} are not recorded."
    ]


def test_a_classifier_beside_networks_that_were_not_given_has_a_cost(tmp_path: Path) -> None:
    (setting,) = settings_of(load_results([write_run(tmp_path / "0", [50.0])]))
    (first,) = setting.results
    beside = changed(
        first,
        last=first.scores.last | {"fused": {"test/top1": 60.0}},
        parameters={"peer0": 10, "peers": 20, "method": 3, "frozen": 20},
        flops={"peer0": 5, "method": 99},
    )
    fused = _used(replace(setting, results=[beside]))[1:]
    assert [(u.what, u.parameters, u.flops) for u in fused] == [("fused", 23, None)]
    given = changed(beside, networks={"teacher": "0a"})
    assert _used(replace(setting, results=[given]))[1:] == []


def test_the_cost_of_a_training_is_that_of_its_steps(digits_runs: list[Path]) -> None:
    settings = settings_of(load_results(digits_runs))
    step_flops = dict(_step_flops(settings, EVERY))
    with undrawn():
        section = accuracy_and_cost(settings, step_flops)
    assert section.missing == []
    rows = costs(section)
    ffl, alone = settings
    images = ffl.results[0].manifest.images["train"]
    assert ffl.results[0].scores.epochs == 2
    for setting, used in ((ffl, "kept"), (ffl, "ensemble"), (ffl, "fused"), (alone, "kept")):
        whole = 2 * images * step_flops[setting] / 1e9
        assert rows[setting.head, used]["train GFLOPs"] == f"{whole:,.2f}"
    peer = alone.results[0].manifest.flops["peer0"]
    assert 2.9 * peer < step_flops[alone] < 3 * peer
    assert step_flops[alone] < step_flops[ffl] < 2 * step_flops[alone]


def test_a_network_that_needs_no_other_is_counted_with_its_own_training(tmp_path: Path) -> None:
    names, top1 = ("peer0", "peer1", "ensemble"), {"test/top1": 50.0}
    (setting,) = settings_of(load_results([write_run(tmp_path / "0", [50.0])]))
    first = changed(
        setting.results[0],
        last=dict.fromkeys(names, top1),
        flops={"peer0": 10, "peer1": 30, "peers": 40},
        parameters={"peer0": 1, "peer1": 3, "peers": 4, "method": 0},
        students={"peer0": 0, "peer1": 1},
    )
    first = replace(first, history=[{"images_per_second": 5.0, "seconds": 20.0}] * 3)

    def trainings(result) -> list[float | None]:
        return [u.training for u in _used(replace(setting, results=[result]), 120.0)]

    whole = 3 * 100 * 120.0
    assert trainings(first) == [whole / 4, whole]
    kept_other = changed(first, student=Kept("peer1", None, None))
    assert trainings(kept_other) == [whole * 3 / 4, whole]
    trunk = replace(first, config=replace(first.config, shared=1))
    assert trainings(trunk) == [whole, whole]
    teaching = replace(first, config=replace(first.config, method={"name": "dml"}))
    assert trainings(teaching) == [whole, whole]
    unknown = changed(first, flops={})
    assert trainings(unknown) == [None, whole]


def test_trainings_that_cannot_be_counted_are_named(digits_runs: list[Path]) -> None:
    settings = settings_of(load_results(digits_runs))
    with undrawn():
        section = accuracy_and_cost(settings, {settings[0]: 1e9})
        assert accuracy_and_cost(settings).missing == []  # nothing was measured: none is missed
    assert section.missing == [
        f"The FLOPs of the training of {settings[1].title} could not be counted."
    ]
    assert costs(section)["2", "kept"]["train TFLOPs"] == "-"


def test_counting_a_step_leaves_nothing_in_the_folder_of_other_jobs(tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    method = {"name": "codistillation", "folder": str(jobs), "job": "a"}
    run = train(tmp_path / "run", method=method, peers=1, shared=0, epochs=1)
    before = {p: p.read_bytes() for p in jobs.rglob("*") if p.is_file()}
    (setting,) = settings_of(load_results([run]))
    assert dict(_step_flops([setting], EVERY)) == {}
    assert {p: p.read_bytes() for p in jobs.rglob("*") if p.is_file()} == before


def test_a_step_whose_teacher_is_gone_is_not_counted(tmp_path: Path, digits_runs) -> None:
    teacher = tmp_path / "teacher.safetensors"
    shutil.copy(digits_runs[2] / "student.safetensors", teacher)
    method = {"name": "kd", "teacher": str(teacher)}
    run = train(tmp_path / "run", method=method, peers=1, shared=0, epochs=1)
    settings = settings_of(load_results([run, digits_runs[2]]))
    counted = dict(_step_flops(settings, EVERY))
    peer = settings[1].results[0].manifest.flops["peer0"]
    assert counted[settings[0]] == counted[settings[1]] + peer  # the teacher's forward pass
    teacher.unlink()
    assert set(_step_flops(settings, EVERY)) == set(counted.items())  # the run has a copy
    (run / "method_teacher.safetensors").unlink()
    assert [s for s, _ in _step_flops(settings, EVERY)] == settings[1:]


@pytest.mark.parametrize(("flops", "unit"), [(3.0, "M"), (4e13, "T"), (2e16, "P"), (9e22, "E")])
def test_the_unit_fits_the_largest_training(tmp_path: Path, flops: float, unit: str) -> None:
    (setting,) = settings_of(load_results([write_run(tmp_path / "0", [50.0])]))
    result = changed(setting.results[0], flops={"peer0": 1, "peers": 1})
    result = replace(result, history=[{"images_per_second": 1.0, "seconds": 1.0}])
    setting = replace(setting, results=[result])
    with undrawn():
        section = accuracy_and_cost([setting], {setting: flops})
    assert f"train {unit}FLOPs" in costs(section)["1", "kept"]
