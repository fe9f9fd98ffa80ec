"""A run's folder and a recipe are data: code that they name is imported only when asked for."""

import dataclasses
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from commands_of import codistill

from codistill.analysis import Missing, analyse
from codistill.comparing.comparison import parse_comparison
from codistill.errors import InputError
from codistill.importing import refuse_code
from codistill.runs.folder import read_config
from codistill.runs.run import Run

TRAP = """
from pathlib import Path
from codistill.methods import Independent as Own
from codistill.networks import resnet
Path(__file__).with_name("sprung").touch()
def network(num_classes): return resnet(8, num_classes=num_classes)
class Logger:
    def __init__(self, *_): pass
    def store_init_configuration(self, *_, **__): pass
    log = finish = store_init_configuration
"""
NAMED = [{"method": {"name": "trap:Own"}}, {"network": "trap:network"}, {"loggers": "trap:Logger"}]


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that is there if the module `trap` was imported."""
    (tmp_path / "trap.py").write_text(TRAP)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "trap", raising=False)
    return tmp_path / "sprung"


@pytest.fixture
def foreign(digits_runs: list[Path], tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A finished run of one network, whose settings name code."""
    run = Path(shutil.copytree(digits_runs[2], tmp_path / "run"))
    config = dataclasses.replace(read_config(run), **request.param)
    config.write(run / "config.yaml")
    return run


@pytest.mark.parametrize("foreign", NAMED, indirect=True)
def test_code_that_a_run_names_is_imported_only_if_asked_for(foreign: Path, trap: Path) -> None:
    for command in (
        ["evaluate", foreign],
        ["train", "--resume", foreign],
        ["inspect", "--config", foreign / "config.yaml"],
        ["train", "--config", foreign / "config.yaml", "--out", trap.with_name("new")],
    ):
        done = codistill(*command)
        assert done.returncode == 2, command
        assert "to be imported and called: if you trust it, give --trust_code true" in done.stderr
    with pytest.raises(InputError, match="if you trust it"):
        Run(foreign)
    predictions = analyse(foreign).predictions
    assert isinstance(predictions, Missing)
    assert "if you trust it, give --trust_code true" in predictions.reason
    assert codistill("report", foreign).returncode == 0  # the table needs no code
    assert not trap.exists()
    done = codistill("train", "--resume", foreign, "--trust_code", "true")
    assert done.returncode == 0, done.stderr
    assert trap.exists()


@pytest.mark.parametrize("foreign", NAMED[1:2], indirect=True)
def test_trust_reaches_every_command(foreign: Path, trap: Path) -> None:
    for command in (
        ["evaluate", foreign],
        ["inspect", "--config", foreign / "config.yaml"],
    ):
        sys.modules.pop("trap", None)
        done = codistill(*command, "--trust_code", "true")
        assert done.returncode == 0, done.stderr
        assert trap.exists()
        trap.unlink()
    assert not isinstance(analyse(foreign, pictures=0, trust_code=True).predictions, Missing)


@pytest.mark.parametrize("foreign", NAMED[:1], indirect=True)
def test_code_named_on_the_command_line_needs_no_trust(foreign: Path, trap: Path) -> None:
    recipe = foreign / "config.yaml"
    done = codistill("inspect", "--config", recipe, "--method", "trap:Own")
    assert done.returncode == 0, done.stderr
    assert trap.exists()


@pytest.mark.parametrize("foreign", NAMED[2:], indirect=True)
def test_a_logger_that_another_takes_the_place_of_needs_no_trust(foreign: Path, trap: Path) -> None:
    assert codistill("train", "--resume", foreign, "--loggers", "none").returncode == 0
    assert not trap.exists()


@pytest.mark.parametrize(
    "named",
    [
        {"methods": {"own": {"name": "trap:Own"}}},
        {"methods": {"dml": {}}, "networks": ["resnet8, trap:network"]},
        {"methods": {"dml": {}}, "settings": {"loggers": "trap:Logger"}},
    ],
)
def test_a_comparison_found_in_a_folder_is_data_too(
    named: dict[str, object], trap: Path, tmp_path: Path
) -> None:
    tree = {"networks": ["resnet8"], "seeds": [0]} | named
    with pytest.raises(InputError, match="to be imported and called"):
        parse_comparison(tree, "comparison.yaml", trust_code=False)
    (tmp_path / "comparison.yaml").write_text(yaml.safe_dump(tree))
    table = "afd_mixed_cifar100"
    done = codistill("reproduce", table, "--report-only", "--out", tmp_path)
    assert done.returncode == 2
    assert "to be imported and called" in done.stderr
    assert not trap.exists()


def test_names_of_libraries_are_no_code() -> None:
    refuse_code(["ffl", "timm/hf-hub:someone/resnet", "torchvision/resnet18", "auto"], "recipe")
    with pytest.raises(InputError, match=r"recipe wants own:Net to be imported"):
        refuse_code(["timm/resnet18", " own:Net"], "recipe")
