"""`codistill compare`: what it trains, what it takes up, what it refuses, what it writes."""

import fcntl
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import yaml
from comparisons import TREE, Ended, InThisProcess, compare
from runs_of import undrawn, untimed

from codistill import seals
from codistill.comparing.comparison import parse_comparison, read_comparison
from codistill.comparing.planned_runs import PlannedRun, plan_runs

ROOT = Path(__file__).parents[2]


@pytest.fixture(name="launcher")
def launcher_named(monkeypatch: pytest.MonkeyPatch) -> InThisProcess:
    return launcher_in_place(monkeypatch)


def launcher_in_place(patch: pytest.MonkeyPatch) -> InThisProcess:
    """What `compare` starts runs with while the patch holds."""
    launcher = InThisProcess()
    patch.setattr("codistill.comparing.launchers.launcher_named", lambda *_: launcher)
    patch.setattr("codistill.comparing.schedule._SECONDS_BETWEEN_LOOKS", 0.0)
    return launcher


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a comparison of one seed, which is trained once and copied by tests."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        launcher_in_place(patch)
        assert compare(folder, TREE | {"seeds": [0]}) == 0
    return folder / "out"


@pytest.mark.long
def test_a_comparison_from_its_first_run_to_its_last_table(
    tmp_path: Path, launcher: InThisProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    figure = {"value": 12.5, "source": "A paper, table 1", "differs": "300 epochs"}
    tree = TREE | {"seeds": [0], "published": {"dml": figure}}
    assert compare(tmp_path, tree) == 0
    assert launcher.started == ["independent_resnet8_seed0", "dml_resnet8_seed0"]
    said = capsys.readouterr()
    assert "[2/2] dml_resnet8_seed0 finished: test top-1 mean peer " in said.err
    assert "one pair (n = 1) has no interval" in said.out
    manifests = [json.loads(p.read_text()) for p in sorted(out.glob("runs/*/manifest.json"))]
    assert len({m["data"]["fingerprint"] for m in manifests}) == 1
    first = untimed(out / "runs" / "dml_resnet8_seed0")
    before = (out / "runs" / "dml_resnet8_seed0" / "result.json").stat().st_mtime_ns
    # Seeds and methods that are added to the file add runs, and leave the others alone.
    tree |= {
        "seeds": [0, 1],
        "methods": {"dml": {}, "branches": {"name": "independent", "shared": 2}},
    }
    assert compare(tmp_path, tree) == 0
    assert launcher.started[2:] == [
        "branches_resnet8_seed0",
        "independent_resnet8_seed1",
        "dml_resnet8_seed1",
        "branches_resnet8_seed1",
    ]
    assert untimed(out / "runs" / "dml_resnet8_seed0") == first
    assert (out / "runs" / "dml_resnet8_seed0" / "result.json").stat().st_mtime_ns == before
    assert "by another process" not in capsys.readouterr().err
    # Everything is finished: nothing is trained, and the report is the same.
    text = (out / "differences.md").read_text()
    with undrawn():
        assert compare(tmp_path, tree, page=True) == 0
    assert "--no-analysis" in (out / "report.html").read_text()
    assert compare(tmp_path, tree, "--report-only", "--images", "3", page=True) == 0
    page = (out / "report.html").read_text()
    for part in (
        'id="versus"',
        "<span>image 3: ",
        "Published: dml: 12.5 (A paper, table 1).",
    ):
        assert part in page, part
    assert len(launcher.started) == 6
    assert (out / "differences.md").read_text() == text
    assert "| dml | mean peer | mean peer | 2 | " in text
    assert "- dml: 12.5 (A paper, table 1). 300 epochs\n" in text
    assert "| dml | 12.5 |" in _columns(out / "compared.md", 0, -1)
    assert "| independent | - |" in _columns(out / "compared.md", 0, -1)
    assert "| branches | peer1 |" in (out / "table.md").read_text()
    assert (out / "curves.png").stat().st_size > 20_000
    # The numbers are those of the runs.
    pairs = []
    for seed in (0, 1):
        dml, alone = (
            json.loads((out / "runs" / f"{m}_resnet8_seed{seed}" / "result.json").read_text())
            for m in ("dml", "independent")
        )
        pairs.append(dml["last"]["ensemble"]["test/top1"] - alone["last"]["ensemble"]["test/top1"])
    assert f"| dml | ensemble | ensemble | 2 | {sum(pairs) / 2:+.2f} [" in text
    printed = capsys.readouterr().out
    assert max(len(x) for x in printed.splitlines() if "---" in x) <= 80
    # A run that is taken away is missed, and said to be.
    (out / "runs" / "dml_resnet8_seed1").rename(out / "runs" / "else")
    assert compare(tmp_path, tree, "--report-only") == 0
    printed = capsys.readouterr().out
    assert "note: dml: seed 1 missing" in printed
    assert "note: runs/else belongs to no row of the file" in printed
    text = (out / "differences.md").read_text()
    assert "| dml | mean peer | mean peer | 1 | " in text
    assert "| branches | mean peer | mean peer | 2 | " in text


def _columns(file: Path, *places: int) -> str:
    lines = [x.strip("|").split("|") for x in file.read_text().splitlines() if x.startswith("|")]
    return "\n".join("|" + "|".join(cells[i] for i in places) + "|" for cells in lines)


@pytest.mark.long
def test_a_run_that_fails_is_tried_twice_and_named_and_the_others_go_on(
    tmp_path: Path, launcher: InThisProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    methods = {"bad": {"name": "dml", "temperature": 1e-38}, "dml | mine": {"name": "dml"}}
    assert compare(tmp_path, TREE | {"seeds": [0], "methods": methods}) == 1
    assert launcher.started == [
        "independent_resnet8_seed0",
        *["bad_resnet8_seed0"] * 2,
        "dml_mine_resnet8_seed0",
    ]
    error = capsys.readouterr().err
    (line,) = [x for x in error.splitlines() if x.startswith("codistill: failed: ")]
    assert "bad_resnet8_seed0: codistill: error: loss term" in line
    assert "is not finite" in line
    assert "(exit status 2); log: " in line
    log = Path(line.rpartition("log: ")[2])
    assert log.read_text().count("is not finite") == 2
    text = (tmp_path / "out" / "differences.md").read_text()
    assert "- bad: seed 0 missing" in text
    assert "| dml \\| mine | mean peer |" in text


@pytest.mark.long
def test_a_changed_file_is_told_before_anything_is_trained(
    trained: Path, tmp_path: Path, launcher: InThisProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = TREE | {"seeds": [0]}
    shutil.copytree(trained, tmp_path / "out")
    capsys.readouterr()
    changed = [
        (tree | {"settings": tree["settings"] | {"lr": 0.2}}, "with lr 0.1, not 0.2"),
        (tree | {"methods": {"dml": {"temperature": 4}}}, "method.temperature 3.0, not 4.0"),
        (tree | {"settings": tree["settings"] | {"data.pad": 2}}, "with data.pad 1, not 2"),
    ]
    for other, answer in changed:
        for option in ([], ["--report-only"]):
            assert compare(tmp_path, other, *option) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert answer in line
            assert "dml_resnet8_seed0 does not belong to it any more" in line
    assert "2 problems" in line  # the networks alone had that padding, too
    assert launcher.started == []
    # What the file leaves open is what it is by default.
    config = tmp_path / "out" / "runs" / "dml_resnet8_seed0" / "config.yaml"
    text = config.read_text()
    edited = "\n".join(x for x in text.splitlines() if seals.NAME not in x)
    config.write_text(edited.replace("pad: 1", "pad: 2"))
    assert compare(tmp_path, tree) == 2
    assert "with data.pad 2, not 1" in capsys.readouterr().err
    config.write_text(text)
    # Where the images, the device and the threads are is no part of what is compared.
    moved = tree | {"settings": tree["settings"] | {"threads": 2, "device": "cpu"}}
    assert compare(tmp_path, moved) == 0
    assert launcher.started == []


def test_all_that_cannot_be_built_is_told_before_the_first_run(
    tmp_path: Path, launcher: InThisProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    methods = {
        "codistillation": {"shared": 2},
        "kd": {},
        "ffl": {"peers": 1},
        "kdcl": {"target": "general"},
        "dml": {},
    }
    settings = TREE["settings"] | {"data": {"name": "digits", "val_fraction": 0.0}}
    assert compare(tmp_path, TREE | {"methods": methods, "settings": settings}) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "4 problems" in line
    for problem in (
        "methods: codistillation: codistillation is for networks",
        "methods: kd: KD needs a teacher",
        "methods: ffl:",
        "methods: kdcl: method 'kdcl', as it is set, measures its peers on held-out images",
    ):
        assert problem in line
    assert launcher.started == []
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_what_is_probably_not_meant_is_remarked(
    tmp_path: Path, launcher: InThisProcess, caplog: pytest.LogCaptureFixture
) -> None:
    methods = {"ffl": {"shared": 2}, "slow": {"name": "ffl", "shared": 2, "ramp_up": 80}}
    assert compare(tmp_path, TREE | {"seeds": [0], "methods": methods}) == 0
    assert "slow: method.ramp_up is 80 epochs, and the run has 1" in caplog.text
    assert "ffl: method.ramp_up" not in caplog.text  # scaled to the run's length


def test_a_sweep_reports_what_the_held_out_images_chose(
    tmp_path: Path, launcher: InThisProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = TREE["settings"] | {"limit_steps": 2}
    tree = TREE | {"seeds": [0], "settings": settings, "sweep": {"lr": [1e-7, 0.1]}}
    assert compare(tmp_path, tree) == 0
    assert launcher.started == [
        f"{method}_lr_{lr}_resnet8_seed0" for method in ("independent", "dml") for lr in (1e-7, 0.1)
    ]
    said, out = capsys.readouterr().out, tmp_path / "out"
    text = (out / "sweep.md").read_text()
    assert text.startswith("By the held-out images, the best values are: independent, lr=")
    assert len(re.findall(r"^\| dml \| lr=", text, re.MULTILINE)) == 2
    (chosen,) = re.findall(r"^\| dml \| (lr=\S+) \| \S+ \| chosen ", text, re.MULTILINE)
    held_out = {
        lr: json.loads((out / "runs" / f"dml_lr_{lr}_resnet8_seed0" / "result.json").read_text())
        for lr in (1e-7, 0.1)
    }
    means = {
        f"lr={lr}": sum(of["last"][f"peer{k}"]["val/top1"] for k in (0, 1)) / 2
        for lr, of in held_out.items()
    }
    assert chosen == max(means, key=lambda lr: means[lr])
    # Only what was chosen is in the tables of the test images, against the chosen of the other.
    (versus,) = re.findall(
        r"^\| dml, (lr=\S+) \| mean peer ", (out / "differences.md").read_text(), re.M
    )
    assert versus == chosen
    assert (out / "table.md").read_text().count("| peer0 |") == 2
    assert said.index("chosen") < said.index("last epoch")
    # One value that is not finished: nothing is chosen yet, and that is said.
    (out / "runs" / f"dml_lr_{1e-7}_resnet8_seed0" / "result.json").unlink()
    assert compare(tmp_path, tree, "--report-only") == 0
    said = capsys.readouterr().out
    assert "note: dml: no seed is finished with every value of the sweep, so none is" in said
    assert "No method has a finished run beside the networks alone of the same seed." in said


def test_what_suits_the_images_and_a_student_belong_to_their_runs_without_a_check(
    tmp_path: Path, launcher: InThisProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"data": "digits", "student": "resnet8", "threads": 1, "limit_steps": 1}
    tree = TREE | {"settings": settings | {"epochs": 1, "batch_size": 0}, "seeds": [0]}
    tree |= {"networks": ["resnet14"]}
    assert compare(tmp_path, tree) == 0
    assert launcher.started == ["independent_resnet14_seed0", "dml_resnet14_seed0"]
    capsys.readouterr()
    assert compare(tmp_path, tree, "--report-only") == 0
    assert "to help or to hurt the student: dml (" in capsys.readouterr().out
    other = tree | {"networks": ["resnet20"]}
    for old in (tmp_path / "out" / "runs").iterdir():
        old.rename(old.with_name(old.name.replace("14", "20")))
    assert compare(tmp_path, other, "--report-only") == 2
    assert "with network resnet8,resnet14, not resnet20" in capsys.readouterr().err


def test_a_sweep_without_held_out_images_is_refused(
    tmp_path: Path, launcher: InThisProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"name": "digits", "val_fraction": 0.0}
    tree = TREE | {"settings": TREE["settings"] | {"data": data}, "sweep": {"lr": [0.01, 0.1]}}
    assert compare(tmp_path, tree) == 2
    said = capsys.readouterr().err
    assert "sweep: held-out images choose the values, and none are held out: give data.val_" in said
    assert launcher.started == []


def test_a_sweep_over_what_batches_are_made_of(tmp_path: Path) -> None:
    """Each row has batches of its own, from which its defaults are taken."""
    settings = TREE["settings"] | {"batch_size": 0}
    tree = TREE | {"settings": settings, "sweep": {"data.pad": [0, 2], "batch_size": [0, 100]}}
    runs = plan_runs(parse_comparison(tree, "it"), tmp_path)
    assert [(r.config.data.pad, r.config.batch_size) for r in runs[:4]] == [
        (0, 32),
        (0, 100),
        (2, 32),
        (2, 100),
    ]


def test_a_run_whose_images_are_others_is_told(
    trained: Path, tmp_path: Path, launcher: InThisProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, tmp_path / "out")
    manifest = tmp_path / "out" / "runs" / "dml_resnet8_seed0" / "manifest.json"
    other = json.loads(manifest.read_text())
    del other[seals.NAME]
    other["data"]["fingerprint"] = "0" * 64
    manifest.write_text(json.dumps(other))
    capsys.readouterr()
    assert compare(tmp_path, TREE | {"seeds": [0]}) == 2
    assert f"data {'0' * 64}, not" in capsys.readouterr().err
    assert compare(tmp_path, TREE | {"seeds": [0]}, "--report-only") == 2
    assert "saw different images" in capsys.readouterr().err


def test_pairs_of_different_versions_are_told(
    trained: Path, tmp_path: Path, launcher: InThisProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, tmp_path / "out")
    assert compare(tmp_path, TREE | {"seeds": [0]}, "--report-only") == 0
    assert "different versions" not in capsys.readouterr().out
    manifest = tmp_path / "out" / "runs" / "dml_resnet8_seed0" / "manifest.json"
    other = json.loads(manifest.read_text())
    del other[seals.NAME]
    other["processes"][0]["git"] = {"commit": "0123456789abcdef", "changed": False}
    manifest.write_text(json.dumps(other))
    assert compare(tmp_path, TREE | {"seeds": [0]}, "--report-only") == 0
    assert "seed 0 by 012345678" in capsys.readouterr().out
    assert "different versions of codistill" in (tmp_path / "out" / "differences.md").read_text()


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        (["--parallel", "0"], "--parallel: '0' is not a whole number above 0"),
        (["--launcher", "cloud"], "invalid choice"),
        (["--report-only"], "holds no finished run"),
        (["--launcher", "slurm"], "slurm: "),
    ],
)
def test_bad_options_get_one_line(
    options: list[str], answer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(tmp_path, TREE, *options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert answer in line


def test_two_calls_do_not_work_in_one_folder(
    tmp_path: Path, launcher: InThisProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    from codistill.runs.folder import locked

    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out"):
        assert compare(tmp_path, TREE) == 2
    assert "another process" in capsys.readouterr().err
    assert launcher.started == []


@pytest.mark.long
def test_a_run_that_another_process_trains_is_waited_for(
    tmp_path: Path,
    launcher: InThisProcess,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the workers of a call that was killed, which take moments to end."""
    folder = tmp_path / "out" / "runs" / "independent_resnet8_seed0"
    folder.mkdir(parents=True)
    held = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    start = launcher.start

    def let_go_and_start(run: PlannedRun, place: int) -> Ended:
        if run.name.startswith("dml"):
            os.close(held)
        return start(run, place)

    monkeypatch.setattr(launcher, "start", let_go_and_start)
    assert compare(tmp_path, TREE | {"seeds": [0]}) == 0
    assert launcher.started == ["dml_resnet8_seed0", "independent_resnet8_seed0"]
    said = capsys.readouterr().err
    assert said.count("independent_resnet8_seed0 waits: another process trains it") == 1


@pytest.mark.long
def test_the_example_runs(tmp_path: Path, launcher: InThisProcess) -> None:
    tree = yaml.safe_load((ROOT / "examples" / "compare_digits.yaml").read_text())
    tree["seeds"] = tree["seeds"][:1]
    tree["settings"]["epochs"] = 1
    assert compare(tmp_path, tree) == 0
    assert (
        "| ffl, not teaching | fused | ensemble |"
        in (tmp_path / "out" / "differences.md").read_text()
    )


def test_the_page_shows_the_example_and_a_file_that_is_understood(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "compare.md").read_text()
    example, everything = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert example == (ROOT / "examples" / "compare_digits.yaml").read_text()
    readme = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    for i, text in enumerate([everything, *readme]):
        file = tmp_path / f"{i}.yaml"
        file.write_text(text)
        rows = read_comparison(file).rows
        assert len(rows) == (11 if i == 0 else 3)
