"""What a page says of cost: of a network in use, and of the training that made it."""

import importlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from runs_of import changed, train, undrawn, write_run

from codistill.methods.flops import count_flops
from codistill.methods.losses import ce_loss
from codistill.methods.method import Method
from codistill.networks.peers import Peers
from codistill.reporting.page.measure import MeasureOptions, _training
from codistill.reporting.page.parts import Fold, Section, Table
from codistill.reporting.page.sections.cost import _used, accuracy_and_cost
from codistill.reporting.page.setting import settings_of
from codistill.runs.finished import Result, load_results
from codistill.runs.results import Kept
from codistill.training.fit import train_epoch

EVERY = MeasureOptions()
fit = importlib.import_module("codistill.training.fit")  # the name is that of a function too


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
    ffl, alone = settings_of(load_results(digits_runs))
    flops = {s: _training(s, EVERY) for s in (ffl, alone)}
    with undrawn():
        section = accuracy_and_cost([ffl, alone], flops)
    assert section.missing == []
    rows = costs(section)
    for setting, used in ((ffl, "kept"), (ffl, "ensemble"), (ffl, "fused"), (alone, "kept")):
        counted = rows[setting.head, used]["training GFLOPs"]
        assert float(counted) == pytest.approx(flops[setting] / 1e9, rel=5e-3)
    images, peer = (getattr(alone.results[0].manifest, n) for n in ("images", "flops"))
    seen = 2 * images["train"]
    assert alone.results[0].scores.epochs == 2
    assert 2.9 * peer["peer0"] * seen < flops[alone] < 3 * peer["peer0"] * seen
    assert flops[alone] < flops[ffl] < 2 * flops[alone]


class Moody(Method):
    """A method that trains, and whose steps fail where it did not expect them."""

    def __init__(self, peers: Peers, mood: str = ""):
        super().__init__(peers)
        self.mood = mood
        self.needs_held_out = mood == "held out"
        self.factors = [1.0, 1.0] if mood == "two epochs" else None

    def begin_epoch(self, epoch, held_out):
        if self.mood == "held out":
            assert list(held_out)

    def optimizers(self, make):
        return {"main": make(self.parameters(), weight_decay=0.0)}

    def losses(self, out, labels, epoch):
        if self.mood == "large batches" and len(labels) < 20:
            raise RuntimeError("I want more images")
        factor = self.factors[epoch] if self.factors else 1.0
        pairs = out.logits @ out.logits.mT  # (K, B, B): larger batches cost more for each image
        return {"ce": factor * ce_loss(out.logits, labels) + 1e-6 * pairs.mean()}


@pytest.mark.parametrize(
    ("mood", "changes"),
    [
        ("", {"freeze": 1, "freeze_epochs": 1}),
        ("", {"freeze": 2, "accumulate": 2}),
        ("two epochs", {}),
        ("held out", {"limit_steps": 3}),
    ],
)
def test_what_was_trained_is_what_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mood: str, changes: dict[str, object]
) -> None:
    counted = []

    def counting(*arguments: object) -> None:
        counted.append(count_flops(train_epoch, *arguments)[1])

    monkeypatch.setattr(fit, "train_epoch", counting)
    method = {"name": f"{__name__}:Moody", "mood": mood}
    run = train(tmp_path / "run", method=method, batch_size=202, **changes)  # 4 whole batches
    (setting,) = settings_of(load_results([run]))
    assert len(counted) == 2
    assert _training(setting, MeasureOptions(trust_code=True)) == pytest.approx(sum(counted), 1e-6)


def test_a_method_whose_steps_fail_is_named_with_the_reason(tmp_path: Path) -> None:
    method = {"name": f"{__name__}:Moody", "mood": "large batches"}
    run = train(tmp_path / "run", method=method, epochs=1)
    (setting,) = settings_of(load_results([run]))
    why = _training(setting, MeasureOptions(trust_code=True))
    with undrawn():
        section = accuracy_and_cost([setting], {setting: why})
    begin = f"The training cost of {setting.title} could not be counted: "
    assert section.missing == [f"{begin}I want more images."]
    assert costs(section)["1", "kept"]["training MFLOPs"] == "-"
    untrusted = _training(setting, EVERY)
    assert isinstance(untrusted, str)
    assert "trust_code" in untrusted


def test_nothing_is_missed_where_nothing_was_measured(digits_runs: list[Path]) -> None:
    settings = settings_of(load_results(digits_runs))
    with undrawn():
        section = accuracy_and_cost(settings)
    assert section.missing == []
    assert not [c for c in costs(section)["1", "kept"] if c.startswith("training")]


def test_a_network_that_needs_no_other_is_charged_with_its_own_training(tmp_path: Path) -> None:
    names, top1 = ("peer0", "peer1", "ensemble"), {"test/top1": 50.0}
    (setting,) = settings_of(load_results([write_run(tmp_path / "0", [50.0])]))
    first = changed(
        setting.results[0],
        last=dict.fromkeys(names, top1),
        flops={"peer0": 10, "peer1": 30, "peers": 40},
        parameters={"peer0": 1, "peer1": 3, "peers": 4, "method": 0},
        students={"peer0": 0, "peer1": 1},
    )

    def trainings(result: Result) -> list[float | None]:
        return [u.training for u in _used(replace(setting, results=[result]), 120.0)]

    assert trainings(first) == [30.0, 120.0]
    kept_other = changed(first, student=Kept("peer1", None, None))
    assert trainings(kept_other) == [90.0, 120.0]
    by_validation = {"peer1": top1}
    chosen = changed(first, student=Kept("peer1", "peer1", 1), best_by_validation=by_validation)
    assert trainings(chosen) == [120.0, 120.0]
    trunk = replace(first, config=replace(first.config, shared=1))
    assert trainings(trunk) == [120.0, 120.0]
    teaching = replace(first, config=replace(first.config, method={"name": "dml"}))
    assert trainings(teaching) == [120.0, 120.0]
    assert trainings(changed(first, flops={})) == [None, 120.0]
    one = changed(first, flops={}, last={"peer0": top1})
    assert trainings(one) == [120.0]


def test_counting_leaves_nothing_in_the_folder_of_other_jobs(tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    method = {"name": "codistillation", "folder": str(jobs), "job": "a"}
    run = train(tmp_path / "run", method=method, peers=1, shared=0, epochs=1)
    before = {p: p.read_bytes() for p in jobs.rglob("*") if p.is_file()}
    (setting,) = settings_of(load_results([run]))
    assert _training(setting, EVERY) == "a step would leave a network in the folder of the jobs"
    assert {p: p.read_bytes() for p in jobs.rglob("*") if p.is_file()} == before


def test_a_teacher_costs_its_forward_passes(tmp_path: Path, digits_runs: list[Path]) -> None:
    teacher = tmp_path / "teacher.safetensors"
    shutil.copy(digits_runs[2] / "student.safetensors", teacher)
    method = {"name": "kd", "teacher": str(teacher)}
    changes = {"method": method, "peers": 1, "shared": 0, "batch_size": 64, "epochs": 2}
    runs = [train(tmp_path / f"run{seed}", seed=seed, **changes) for seed in (0, 1)]
    setting, alone = settings_of(load_results([*runs, digits_runs[2]]))
    manifest = alone.results[0].manifest
    more = 2 * manifest.images["train"] * manifest.flops["peer0"]
    counted = _training(alone, EVERY) + more
    assert _training(setting, EVERY) == pytest.approx(counted)
    teacher.unlink()  # each run has a copy
    (runs[0] / "method_teacher.safetensors").unlink()
    assert _training(setting, EVERY) == pytest.approx(counted)
    (runs[1] / "method_teacher.safetensors").unlink()
    assert "teacher" in _training(setting, EVERY)


def test_a_seed_without_times_does_not_count(digits_runs: list[Path]) -> None:
    (setting, _) = settings_of(load_results(digits_runs))
    whole = _training(setting, EVERY)
    early = [{k: v for k, v in e.items() if k != "seconds"} for e in setting.results[0].history]
    results = [replace(setting.results[0], history=early), setting.results[1]]
    assert _training(replace(setting, results=results), EVERY) == pytest.approx(whole)
    half = replace(setting.results[1], history=setting.results[1].history[:1])
    counted = _training(replace(setting, results=[setting.results[0], half]), EVERY)
    assert counted == pytest.approx(0.75 * whole)
    none = _training(replace(setting, results=results[:1]), EVERY)
    assert none == "the runs do not record how long they took"


@pytest.mark.parametrize(
    ("flops", "unit", "said"),
    [
        (3.0, "M", "0.00000300"),
        (4.567e13, "T", "45.7"),
        (999.9e12, "T", "1,000"),
        (2e16, "P", "20.0"),
        (9e21, "E", "9,000"),
    ],
)
def test_the_unit_fits_the_largest_training(
    tmp_path: Path, flops: float, unit: str, said: str
) -> None:
    (setting,) = settings_of(load_results([write_run(tmp_path / "0", [50.0])]))
    with undrawn():
        section = accuracy_and_cost([setting], {setting: flops})
    assert costs(section)["1", "kept"][f"training {unit}FLOPs"] == said
