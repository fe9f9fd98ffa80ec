"""A comparison by options: the file that it writes, its folder, and what it refuses."""

from pathlib import Path

import pytest
import yaml
from commands_of import codistill
from comparisons import InThisProcess
from photo_fakes import write_classes
from runs_of import tables_only

from codistill.comparing.comparison import Comparison, parse_comparison
from codistill.comparing.without_file import comparison_of, usual_folder
from codistill.settings.data_word import with_data

DIGITS = "digits --network resnet8 --shared 2 --epochs 1 --limit_steps 1 --threads 1"


@pytest.fixture(name="launcher")
def launcher_in_this_process(monkeypatch: pytest.MonkeyPatch) -> InThisProcess:
    launcher = InThisProcess()
    monkeypatch.setattr("codistill.comparing.launchers.launcher_named", lambda *_: launcher)
    monkeypatch.setattr("codistill.comparing.schedule._SECONDS_BETWEEN_LOOKS", 0.0)
    return launcher


def asked(options: str, methods: str, networks: str | None = None) -> Comparison:
    """What these arguments of `train` compare."""
    argv, _ = with_data(options.split())
    return comparison_of(argv, methods, networks, 2, "codistill compare ...", {})


def test_the_file_that_it_writes_takes_up_its_runs(
    tmp_path: Path, launcher: InThisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = f"compare {DIGITS} --methods dml --seeds 1 --no-analysis".split()
    shown = codistill(*command, "--dry-run")
    assert "2 runs: seeds 0; 1 epoch of 808 images of digits" in shown.stdout
    assert shown.stdout.endswith("folder: runs/compare_digits\n")
    assert not Path("runs").exists()
    with tables_only():
        assert codistill(*command).returncode == 0
    folder = tmp_path / "runs" / "compare_digits"
    assert launcher.started == ["independent_resnet8_seed0", "dml_resnet8_seed0"]
    text = (folder / "comparison.yaml").read_text()
    assert text.startswith(f"# codistill {' '.join(command)}\n")
    assert yaml.safe_load(text) == {
        "settings": {
            "shared": 2,
            "data": {"name": "digits"},
            "epochs": 1,
            "limit_steps": 1,
            "threads": 1,
        },
        "networks": ["resnet8"],
        "seeds": [0],
        "methods": {"dml": {}},
    }
    # Its file and its folder, from anywhere: nothing is trained.
    (tmp_path / "elsewhere").mkdir()
    for again, option in ((folder / "comparison.yaml", "--no-analysis"), (folder, "--dry-run")):
        with tables_only():
            done = codistill("compare", again, option, cwd=tmp_path / "elsewhere")
        last = f"folder: {folder}" if option == "--dry-run" else str(folder / "differences.csv")
        assert done.stdout.splitlines()[-1] == last
    assert "2 runs, 2 of them finished: " in done.stdout
    assert len(launcher.started) == 2
    with tables_only():  # one more seed: in the same folder
        assert codistill(*command, "--seeds", "2").returncode == 0
    assert launcher.started[2:] == ["independent_resnet8_seed1", "dml_resnet8_seed1"]
    assert yaml.safe_load((folder / "comparison.yaml").read_text())["seeds"] == [0, 1]


def test_photographs_take_the_recipe_as_in_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "photos", {"ant": 12, "bee": 12})
    rows = asked("photos/ --pretrained false --shared 1", "dml,independent").rows
    assert [row.label for row in rows] == ["independent", "dml"]  # it is always there
    c = rows[1].config
    assert (c.optimizer, c.student, c.epochs) == ("adamw", "timm/mobilenetv3_small_100", 0)
    assert (c.data.name, c.data.root, c.data.min_scale) == ("folder", f"{tmp_path}/photos", 0.25)
    # Networks that are named take the place of the student's.
    named = asked("photos --epochs 3", "dml", "timm/resnet18, timm/resnet34")
    assert [row.config.networks() for row in named.rows[2:]] == [
        ["timm/resnet18"] * 2,
        ["timm/resnet34"] * 2,
    ]
    assert named.rows[2].config.optimizer == "adamw"
    again = parse_comparison(yaml.safe_load(named.text), "again")
    assert again.rows == named.rows
    assert asked("photos --student timm/resnet18", "dml", "timm/resnet34").rows[1].config.student
    # Without the recipe, as in train.
    assert asked("photos --network resnet8", "dml").rows[1].config.optimizer == "sgd"


@pytest.mark.parametrize(
    ("argv", "folder"),
    [
        (["--data", "folder", "--data.root", "my/Photos of 2024/"], "runs/compare_photos_of_2024"),
        (["--data.name=cifar100"], "runs/compare_cifar100"),
        (["--data", "webdataset", "--data.root", "/a/*.tar"], "runs/compare_tar"),
        ([], "runs/compare_digits"),
    ],
)
def test_the_folder_is_named_by_the_images(argv: list[str], folder: str) -> None:
    assert str(usual_folder(with_data(argv)[0])) == folder


def test_options_go_to_the_methods_that_take_them() -> None:
    rows = asked("digits --method.temperature=2 --method.ramp_up 7", "dml,ffl,kdcl").rows
    assert [row.config.method.get("temperature") for row in rows] == [None, 2.0, 2.0, 2.0]
    assert [row.config.method.get("ramp_up") for row in rows] == [None, None, 7, None]
    rows = asked("digits --config photos --pretrained false", "dml").rows
    assert rows[1].config.data.image_size is None  # the recipe's images are of another kind


def test_a_sweep_is_written_into_the_file() -> None:
    sweeps = ["lr=1e-3,0.1", "milestones=[1],[0.5,0.75]", "optimizer=sgd,timm/lion"]
    argv = with_data(["digits", "--network", "resnet8"])[0]
    comparison = comparison_of(argv, "dml", None, 1, "it", {}, sweeps)
    wanted = {
        "lr": [1e-3, 0.1],
        "milestones": [[1], [0.5, 0.75]],
        "optimizer": ["sgd", "timm/lion"],
    }
    assert comparison.sweep == wanted
    assert len(comparison.rows) == 16
    assert yaml.safe_load(comparison.text)["sweep"] == wanted


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("", "give images and methods, such as codistill compare photos --methods dml,ffl"),
        ("a.yaml b.yaml", "give images and methods"),
        ("a.yaml --epochs 3", "--epochs is a setting of the runs: write it in the file"),
        ("a.yaml --data.pad=3", "--data.pad is a setting of the runs"),
        ("a.yaml --paralell 3", "'--paralell' is not known: did you mean '--parallel'?"),
        ("a.yaml --seeds 3", "--seeds is for comparisons without a file: write seeds in a.yaml"),
        (".", "codistill compare . --methods dml,ffl"),
        ("digits --methods dml --method ffl", "--method is for one training: give --methods"),
        ("digits --methods dml --seed 3", "--seed is for one training: give --seeds N"),
        ("digits --methods dlm", "method 'dlm' is not known: did you mean 'dml'?"),
        ("digits --methods dml,", "--methods is 'dml,': an entry of it is empty"),
        ("digits --methods dml --method.beta 1", "none of dml takes 'method.beta': there are "),
        ("digits --methods independent --method.x 1", "takes 'method.x': they have no options"),
        ("digits --methods dml --network a --networks b", "--network and --networks both name"),
        ("digits --methods dml --paralell 2", "'paralell' is not known: did you mean 'parallel'?"),
        ("digits --methods one,kd", "methods: one: "),
        ("digits --methods dml --sweep lr", "--sweep is 'lr': give a setting and values, such as"),
        ("digits --methods dml --sweep lr=[1", "--sweep 'lr=[1' cannot be read: "),
        ("digits --methods dml --sweep lr=1", "sweep: lr is [1]: give two values or more"),
        ("digits --methods dml --sweep lr=1,x", "dml, lr=x: "),
        ("digits --methods dml --sweep data=a,b", "'data.name' cannot be swept: its values would"),
        ("a.yaml --sweep lr=1,2", "--sweep is for comparisons without a file: write sweep in a.y"),
    ],
)
def test_what_it_cannot_use_gets_one_line(
    line: str, answer: str, tmp_path: Path, launcher: InThisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "start", lambda *_: pytest.fail("it trains"))
    done = codistill("compare", *line.split(), cwd=tmp_path)
    assert done.returncode == 2
    assert answer in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_problem_of_all_methods_is_told_once(tmp_path: Path, launcher: InThisProcess) -> None:
    line = "compare digits --methods dml,kdcl --network resnet8 --optimizer adamm"
    said = codistill(*line.split(), cwd=tmp_path).stderr
    assert said.count("methods: independent, dml, kdcl: optimizer 'adamm' is not known") == 1
    assert "problems" not in said
