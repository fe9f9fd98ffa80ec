"""The command line: what it answers to good and to bad input."""

import json
import re
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from commands_of import TINY, codistill
from data_fakes import make_fake, write_class_folders
from runs_of import tables_only

from codistill.command.main import main
from codistill.errors import InputError
from codistill.settings.arguments import _LISTS, parse_config
from codistill.settings.config import Config
from codistill.settings.data_config import DataConfig
from codistill.training.evaluate import evaluate


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a command answers bad input with."""
    assert main(arguments) == 2
    output = capsys.readouterr()
    (line,) = output.err.splitlines()
    assert line.startswith("codistill: error: ")
    return line


def parsed(*arguments: str) -> Config:
    return parse_config(arguments, "codistill train")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["train", "--resume", "RUN", "--help"],
        ["inspect", "--help"],
        ["list"],
        ["list", "methods", "--help"],
        ["evaluate", "--help"],
        ["report", "--help"],
        ["compare", "-h"],
        ["reproduce", "--help"],
        ["data", "check", "--help"],
        ["demo", "--help"],
    ],
)
def test_help_comes_without_pytorch(arguments: list[str]) -> None:
    code = (
        "import sys; from codistill.command.main import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: codistill" in done.stdout
    assert time.perf_counter() - begin < 5  # under 1 on an idle machine


@pytest.mark.parametrize(("argument", "status"), [("--version", 0), ("trian", 2)])
def test_the_exit_status_is_that_of_the_process(argument: str, status: int) -> None:
    installed = Path(sys.executable).with_name("codistill")
    for start in ([installed], [sys.executable, "-m", "codistill"]):
        done = subprocess.run([*start, argument], capture_output=True, text=True)
        assert done.returncode == status
        assert done.stderr.startswith("codistill: error: ") == bool(status)


def test_the_help_of_a_method_shows_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "--method", "ffl", "--help"])
    assert stop.value.code == 0
    assert "--method.temperature" in capsys.readouterr().out


def test_the_help_of_a_training_begins_with_what_matters(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    assert "Example: codistill train photos " in text
    options = re.findall(r"^  (?:-h, )?(\S+)", text, re.MULTILINE)
    six = ["DATA", "--network", "--student", "--method", "--epochs", "--batch_size", "--out"]
    assert options[:7] == six
    assert {*options} >= {"--help", "--data", "--data.root", "--lr", "--mixup", "--threads"}
    assert len(options) == len({*options})
    known = {f"--{name}" for name in Config.__dataclass_fields__}
    assert {*options} >= known, "an option of the training is not in the help"


def test_options_win_over_the_recipe() -> None:
    config = parsed("--config", "ffl_resnet20_cifar100_short", "--epochs", "7", "--lr=0.2")
    assert (config.epochs, config.lr, config.network) == (7, 0.2, "resnet20")
    assert config.method == {
        "name": "ffl",
        "temperature": 3.0,
        "ensemble_teaches": True,
        "fused_teaches": True,
        "fusion_weight_decay": 1e-5,
        "standardise": False,
    }


def test_a_method_named_on_the_command_line_does_without_the_options_of_the_recipes() -> None:
    config = parsed("--config", "ffl_resnet20_cifar100_short", "--method", "independent")
    assert config.method == {"name": "independent"}


def test_the_options_of_the_issue_are_understood() -> None:
    options = (
        "--method ffl --method.temperature 4 --network resnet32 --peers 2 --shared 2 "
        "--data cifar100 --data.root DIR --epochs 300 --seed 0 --out DIR"
    )
    config = parsed(*options.split())
    assert config.method["temperature"] == 4.0
    assert (config.data.name, config.data.root, config.out) == ("cifar100", "DIR", "DIR")


def test_a_recipe_may_be_flat(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("method: dml\nmethod.temperature: 2.0\ndata.name: cifar10\n")
    config = parsed("--config", str(tmp_path / "r.yaml"))
    assert config.method == {"name": "dml", "temperature": 2.0, "standardise": False}
    assert config.data.name == "cifar10"


def test_a_recipe_may_write_numbers_as_yaml_misreads_them(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("weight_decay: 5e-4\nlr: 1\n")
    config = parsed("--config", str(tmp_path / "r.yaml"))
    assert (config.weight_decay, config.lr) == (5e-4, 1.0)


def test_a_whole_number_in_a_recipe_is_the_same_option_as_one_with_a_point(tmp_path: Path) -> None:
    for number in ("4", "4.0"):
        (tmp_path / "r.yaml").write_text(f"method: {{name: dml, temperature: {number}}}\n")
        config = parsed("--config", str(tmp_path / "r.yaml"))
        assert repr(config.method["temperature"]) == "4.0"  # one row in a report


@pytest.mark.parametrize(
    "name",
    [
        "ffl_resnet32_cifar100",
        "ffl_resnet20_cifar100_short",
        "independent_resnet20_cifar100_short",
    ],
)
def test_every_recipe_is_understood(name: str) -> None:
    assert parsed("--config", name).epochs > 0


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["trian"], "did you mean 'train'?"),
        (["fit"], "did you mean 'train'?"),
        (["val"], "did you mean 'evaluate'?"),
        (["classify"], "did you mean 'predict'?"),
        (["train", "--batch-size", "4"], "did you mean 'batch_size'?"),
        (["train", "--learning-rate", "1"], "did you mean 'lr'?"),
        (["train", "--lr-scheduler", "cosine"], "did you mean 'schedule'?"),
        (["train", "--arch", "resnet8"], "did you mean 'network'?"),
        (["train", "--imgsz", "64"], "did you mean 'data.image_size'?"),
        (["train", "--network", "resnet18"], "did you mean 'timm/resnet18'?"),
        (["train", "--network", "alexnet"], "did you mean 'torchvision/alexnet'?"),
        (["train", "--metod", "ffl"], "did you mean 'method'?"),
        (["train", "--method.temprature", "4"], "did you mean 'method.temperature'?"),
        (["train", "--method", "fll"], "did you mean 'ffl'?"),
        (["train", "--network", "resnet33"], "did you mean 'resnet32'?"),
        (["train", "--data", "cifar1000"], "did you mean 'cifar100'?"),
        (["train", "--config", "ffl_resnet20"], "did you mean 'ffl_resnet20_cifar100_short'?"),
        (["train", "--method", "independent", "--method.temperature", "4"], "has no option"),
        (["train", "--epochs", "many"], "epochs"),
        (["train", "--epochs", "-1"], "epochs is -1: it has to be at least 0"),
        (["train", "--lr", "-1"], "lr is -1.0: it has to be above 0"),
        (["train", "--batch_size", "1"], "batch_size is 1: give 2 or more"),
        (["train", "--data.val_fraction", "1"], "data.val_fraction is 1.0"),
        (["train", "--method.temperature", "0"], "temperature is 0.0: it has to be above 0"),
        (["train", "--peers", "1", "--network", "resnet8"], "needs at least 2 peers, not 1"),
        (["train", "--peers", "3", "--network", "resnet8,resnet14"], "give --peers 2"),
        (["train", "--network", "resnet8", "--shared", "4"], "shared is 4"),
        (["train", "--network", "resnet8,wrn_16_2", "--shared", "1"], "use shared <= 0"),
        (["train", "--network", "resnet8", "--device", "gpu"], "device 'gpu' cannot be used"),
        (["train", "--data", "cifar100", "--data.root", "/nowhere"], "/nowhere"),
        (["train", "--resume", "/nowhere"], "/nowhere holds no run"),
        (["train", "--resume", "RUN", "--epochs", "3"], "leave out --epochs 3"),
        (["evaluate", "/nowhere"], "/nowhere holds no run"),
        (["report", "/nowhere"], "/nowhere holds no run"),
        (["list", "method"], "did you mean 'methods'?"),
        (["train", "--flip", "true"], "did you mean 'data.flip'?"),
        (["train", "--zzz", "adam"], "'zzz' is not known: `codistill train --help` s"),
        (["train", "--Batch-Size", "8"], "did you mean 'batch_size'?"),
        (["train", "--image_sise", "8"], "did you mean 'data.image_size'?"),
        (["train", "--method", "mean"], "there are 'afd', 'cl_ilr', 'codistillation', 'dml', "),
        (["train", "--data.flip", "maybe"], "data.flip is maybe: give true or false"),
        (["train", "--data.pad", "1.5"], "data.pad is 1.5: give a whole number"),
        (["train", "--data.pad_mode", "x"], "data.pad_mode is x: give 'reflect' or 'zeros'"),
        (["train", "--data.mean", "1,a,3"], "data.mean is [1.0, 'a', 3]: give numbers with comm"),
        (["train", "--data.mean", "3"], "data.mean is [3.0]: give 3 numbers"),
        (["train", "--seed", "9" * 20], "and below"),
        (["train", "--data.split_seed", "9" * 20], "and below"),
        (["train", "--threads", "100000"], "and at most 1024"),
        (["train", "--lr", "1e300"], "and below"),
        (["train", "--data.std", "[0,1,1]"], "data.std is [0.0, 1.0, 1.0]: it has to be above 0"),
        (["train", "--method", ":"], "names nothing"),
        (["train", "--network", "os:getcwd"], "cannot be called as f(num_classes=...)"),
        (["train", "--network", "codistill.networks:resnet"], "cannot be called as"),
        (["train", "--device", "meta"], "device 'meta' cannot be used"),
        (["train", "--config="], "there is no recipe file"),
        (["train", "--resume"], "expected one argument"),
        (["evaluate"], "the following arguments are required: run"),
        (["evaluate", "RUN", "--split", "train"], "invalid choice"),
        (["report"], "the following arguments are required: runs"),
        (["demo", "--seeds", "0"], "--seeds: '0' is not a whole number above 0"),
        (["train", "--network", "no.such.module:thing"], "cannot import 'no.such.module'"),
        (["train", "--network", "codistill.networks:nothing"], "has no 'nothing'"),
    ],
)
def test_bad_input_gets_one_line_that_helps(
    arguments: list[str], answer: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if arguments[0] == "train" and "--resume" not in arguments:
        arguments = [*arguments, "--out", str(tmp_path / "run")]
    assert answer in refused(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("recipe", "answer"),
    [
        ("epocks: 3", "did you mean 'epochs'?"),
        ("method: {name: ffl, temprature: 3}", "did you mean 'method.temperature'?"),
        ("data: {nam: digits}", "did you mean 'data.name'?"),
        ("epochs: many", "epochs"),
        ("- epochs", "is no recipe"),
        ("epochs: [", "no YAML"),
        ("epochs: 3\nepochs: 4", "'epochs' is given twice"),
        ("method: null", "method is None: give a name"),
        ("method: [ffl]", "method is ['ffl']: give a name"),
        ("method: {name: [ffl]}", "give a name"),
        ("data: 3", "data is 3: give a name"),
        ("method: 3\nmethod.temperature: 4", "its keys have to be names"),
        ("1: 2", "its keys have to be names"),
        ("config: other.yaml", "cannot name another"),
        ("epochs: null", "epochs is None: give a whole number"),
        (
            "data.flip: null\ndata.rand_augment: null",
            "data.rand_augment is None: give a whole number",
        ),
        ("method: {name: ffl, temperature: null}", "method.temperature is None: give a number"),
        ("epochs: {}", "epochs"),
        ("lr: 0x1" + "0" * 300, "a whole number in it is too long"),
        ("seed: " + "1" * 5000, "no YAML"),
        ("milestones: &a [*a]", "nested too deeply"),
        ("milestones: " + "[" * 3000, "no YAML"),
        ("project: \udcff", "no YAML"),
        ('network: "a\0b"', "no YAML"),
    ],
)
def test_a_bad_recipe_gets_one_line_that_helps(
    recipe: str, answer: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe, errors="surrogateescape")
    line = refused(capsys, "train", "--config", str(path), "--out", str(tmp_path / "run"))
    assert answer in line
    assert str(path) in line


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    done = codistill("train", *TINY, "--epochs", "2", "--out", path)
    assert done.returncode == 0, done.stderr
    return path


@pytest.mark.long
def test_evaluate_measures_what_training_reported(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = json.loads((run / "result.json").read_text())
    assert main(["evaluate", str(run)]) == 0
    table = capsys.readouterr().out
    for name, metrics in result["last"].items():
        (line,) = [x for x in table.splitlines() if re.match(rf"{name} +\d", x)]
        assert f"{metrics['test/top1']:.2f}" in line
        assert f"{metrics['test/nll']:.4f}" in line


def test_evaluate_in_bf16_says_so(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table is rounded: that bf16 was used is seen in the call."""
    asked = []

    def watched(*arguments: object) -> dict[str, float]:
        asked.append(arguments[2])
        return evaluate(*arguments)

    monkeypatch.setattr("codistill.training.evaluate.evaluate", watched)
    for options in ([], ["--precision", "bf16"]):
        assert main(["evaluate", str(run), *options]) == 0
        table = " ".join(capsys.readouterr().out.split())
        assert ("in bf16" in table) == bool(options)
    assert asked == ["fp32", "bf16"]


@pytest.mark.long
def test_a_run_can_be_evaluated_where_its_images_are_now(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A made-up CIFAR-10 in class folders, moved after the training."""
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    write_class_folders(there, make_fake("cifar10"))
    options = ["--data", "cifar10", "--data.root", str(there), "--data.val_fraction", "0"]
    done = codistill("train", *TINY, *options, "--epochs", "1", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    there.rename(here)
    assert str(there) in refused(capsys, "evaluate", str(tmp_path / "run"))
    arguments = [str(tmp_path / "run"), "--data.root", str(here), "--device", "cpu"]
    assert main(["evaluate", *arguments]) == 0
    assert main(["train", "--resume", *arguments]) == 0


@pytest.mark.long
def test_training_without_a_terminal_prints_a_line_per_epoch(tmp_path: Path) -> None:
    done = codistill("train", *TINY, "--epochs", "2", "--out", tmp_path / "run")
    *header, folder, first, second = done.stderr.splitlines()
    assert folder == f"folder    {tmp_path / 'run'}"
    assert header == [
        "images    digits: 1,797 images, 10 classes",
        "          808 to train on, 90 held out, 899 to test on, at 8x8",
        "networks  resnet8: peer0, peer1, 0.08 M parameters",
        "method    ffl",
        "training  2 epochs, 13 steps each, 64 images a step, sgd at lr 0.1",
        "          on cpu, 1 thread, in fp32",
    ]
    assert all(f"epoch {e}/2  val top-1 peer0" in x for e, x in ((1, first), (2, second)))
    assert re.search(r"; loss \d+\.\d+; .*; best so far peer[01] [\d.]+ in epoch 1$", first)
    assert str(tmp_path / "run" / "student.safetensors") in done.stdout


def test_a_ramp_up_longer_than_the_run_is_remarked(tmp_path: Path) -> None:
    options = ["--method.ramp_up", "80", "--epochs", "1", "--out", str(tmp_path / "run")]
    done = codistill("train", *TINY, *options)
    assert "distillation reaches 1% of its weight" in " ".join(done.stderr.split())


def test_a_burn_in_longer_than_the_run_is_remarked(tmp_path: Path) -> None:
    options = ["--network", "resnet8", "--peers", "2", "--epochs", "1", "--threads", "1"]
    options += ["--method", "codistillation"]
    done = codistill("train", *options, "--out", str(tmp_path / "run"))
    assert "method.burn_in is 1, and the run has 1 epochs" in " ".join(done.stderr.split())


def test_the_config_in_a_run_says_everything(run: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert set(config) == set(Config.__dataclass_fields__)
    assert config["data"]["pad"] == 1
    assert config["data"]["flip"] is False
    assert len(config["data"]["mean"]) == 3
    assert config["threads"] == 1


@pytest.mark.long
def test_inspect_shows_what_is_shared_and_what_is_added(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    options = "--network resnet32 --peers 2 --shared 2 --data cifar100 --batch_size 8"
    assert main(["inspect", *options.split()]) == 0
    text = capsys.readouterr().out
    for number in ("472,756", "832,920", "16,228", "138.3 MFLOPs", "shared"):
        assert number in text
    assert text.startswith("resnet32\nPeers 0, 1: each alone ")
    assert "ffl                                  16,228                 0            0" in text
    assert "codistillation: codistillation is for networks that are trained apart" in text


@pytest.mark.parametrize(
    ("kind", "expected"),  # methods: see tests/analysis/test_overview.py
    [("networks", "wrn_28_10"), ("data", "cifar100"), ("recipes", "ffl_")],
)
def test_list_shows_what_there_is(
    kind: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", kind]) == 0
    assert expected in capsys.readouterr().out


@pytest.mark.parametrize("out", ["", " "])
def test_an_empty_folder_name_is_refused(out: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "out is empty" in refused(capsys, "train", f"--out={out}")


def test_a_folder_name_with_brackets_is_a_folder_name(tmp_path: Path) -> None:
    done = codistill("train", *TINY, "--epochs", "1", "--out", "x[/bold][red]y", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x[" / "bold][red]y" / "student.safetensors").exists()
    assert "\nfolder    x[/bold][red]y\n" in done.stderr
    assert "\nepoch 1/1  " in done.stderr


def test_the_configuration_of_an_earlier_version_is_a_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "config.yaml"
    recipe.write_text(parsed("--epochs", "7").to_yaml() + "kernels: true\n")
    assert parsed("--config", str(recipe)) == parsed("--epochs", "7")


def test_the_configuration_survives_yaml(tmp_path: Path) -> None:
    config = parsed("--method", "dml", "--network", "resnet20,wrn_16_2", "--lr", "1e-3")
    config.project = "1e3"  # a text, not a number
    config.write(tmp_path / "config.yaml")
    assert Config.read(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("settings", "factors"),
    [
        ({"epochs": 4, "milestones": [0.5, 0.75]}, [1, 1, 0.1, 0.01]),
        ({"epochs": 4, "milestones": [1.0, 3.0], "lr_decay": 0.5}, [1, 0.5, 0.5, 0.25]),
        ({"epochs": 4, "schedule": "cosine"}, [1, 0.853553, 0.5, 0.146447]),
        ({"epochs": 4, "milestones": [], "warmup_epochs": 2.0}, [1 / 3, 2 / 3, 1, 1]),
    ],
)
def test_the_learning_rate_follows_its_schedule(settings: dict, factors: list[float]) -> None:
    config = Config(**settings)
    assert [config.lr_at(e) for e in range(4)] == pytest.approx(factors, abs=1e-6)


def test_a_wrong_number_of_means_is_refused() -> None:
    with pytest.raises(InputError, match="data.mean is \\[1.0\\]: give 3 numbers"):
        parsed("--data.mean", "[1.0]")


@pytest.mark.long
def test_the_demonstration_ends_with_a_table_and_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["demo", "--seeds", "2", "--epochs", "1", "--out", str(tmp_path / "demo")]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    for row in ("ffl resnet8 x2", "peer1", "ensemble", "fused", "independent resnet8 x1"):
        assert row in text
    assert (tmp_path / "demo" / "curves.png").stat().st_size > 20_000
    assert str(tmp_path / "demo" / "curves.png") in text
    rows = (tmp_path / "demo" / "runs.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * (4 + 1)
    with tables_only():
        assert main([*arguments[:2], "1", *arguments[3:]]) == 0
    # The second one leaves the first alone.
    assert (tmp_path / "demo-2" / "curves.png").exists()


@pytest.mark.parametrize(
    ("module", "extra"), [("sklearn", "digits"), ("matplotlib", "report"), ("jinja2", "report")]
)
def test_the_demonstration_misses_packages_before_it_trains(
    module: str,
    extra: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    options = ["--seeds", "1", "--epochs", "1", "--out", str(tmp_path / "demo")]
    assert main(["demo", *options]) != 0
    assert f"pip install 'codistill[{extra}]'" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_numbers_with_commas_are_lists() -> None:
    config = parsed("--data.mean", "120,110,100", "--data.std=50,51,52", "--milestones", "3")
    assert config.data.mean == [120, 110, 100]
    assert config.data.std == [50, 51, 52]
    assert config.milestones == [3]
    assert parsed("--milestones", "[0.5, 0.9]").milestones == [0.5, 0.9]
    lists = [f.name for f in fields(Config) if "list" in str(f.type)]
    assert {*lists, *(f"data.{f.name}" for f in fields(DataConfig) if "list" in str(f.type))} == (
        _LISTS
    )


@pytest.mark.parametrize(
    ("option", "advice"),
    [
        ("--data.mean=.485,.456,.406", "as in --data.mean 123.7,116.3,103.5"),
        ("--data.std=[.2,.2,.2]", "as in --data.std 51.0,51.0,51.0"),
    ],
)
def test_channels_from_0_to_1_are_refused(option: str, advice: str) -> None:
    with pytest.raises(InputError, match=f"multiply by 255, {advice}"):
        parsed(option)
