"""The network that ships: which peer, of which epoch, and the same number everywhere."""

import json
import re
from pathlib import Path

import pytest
import torch
from commands_of import codistill
from runs_of import assert_same_run, tiny_config, train

from codistill.analysis import analyse
from codistill.errors import InputError
from codistill.methods.parameters import parameter_counts
from codistill.runs.run import Run
from codistill.runs.student import load_student
from codistill.settings.arguments import parse_config
from codistill.settings.build_method import build_with_student
from codistill.settings.config import Config
from codistill.settings.data_config import DataConfig
from codistill.settings.keeping import names_kept

TWO = {"method": {"name": "dml"}, "network": "resnet8", "shared": 0}
MANY = DataConfig(val_fraction=0.2)  # of 898 digits: enough to choose


@pytest.fixture
def first_is_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """The held-out images choose the first epoch, whatever this machine computes."""
    for module in ("run", "results"):
        monkeypatch.setattr(f"codistill.runs.{module}.best_epoch", lambda *_: 1)


def states_of(run: Run) -> list[dict[str, torch.Tensor]]:
    """Trains a run; the weights of its method after each epoch."""
    return [{name: x.clone() for name, x in run.method.state_dict().items()} for _ in run.train()]


def assert_ships(run: Run, epoch: int, state: dict[str, torch.Tensor]) -> None:
    student = load_student(run.path / "student.safetensors")
    assert student.about["epoch"] == epoch
    run.method.load_state_dict(state)
    peer = run.method.peers.student(student.about["peer"]).state_dict()
    torch.testing.assert_close(student.network.state_dict(), peer, rtol=0, atol=0)


@pytest.mark.usefixtures("first_is_best")
@pytest.mark.parametrize(("data", "epoch"), [(MANY, 1), (DataConfig(), 2)])
def test_enough_held_out_images_choose_the_epoch(
    data: DataConfig, epoch: int, tmp_path: Path
) -> None:
    run = Run.create(tiny_config(tmp_path / "run", data=data, **TWO))
    states = states_of(run)
    last = {name: x.clone() for name, x in run.method.state_dict().items()}
    torch.testing.assert_close(last, states[1], rtol=0, atol=0)
    assert_ships(run, epoch, states[epoch - 1])
    assert json.loads((run.path / "result.json").read_text())["student"]["epoch"] == epoch
    weights = "best" if epoch == 1 else "last"
    done = codistill("evaluate", run.path)
    assert f"{run.path}: {weights} weights" in done.stdout
    assert len(list(run.path.glob("student*"))) == 1


@pytest.mark.usefixtures("first_is_best")
def test_a_run_that_was_stopped_ends_with_the_same_student(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", data=MANY, **TWO)
    stopped = Run.create(tiny_config(tmp_path / "stopped", data=MANY, **TWO))
    for _ in stopped.train():
        break
    assert (stopped.path / "student.safetensors").exists()
    for _ in Run(stopped.path).train():
        pass
    assert_same_run(whole, stopped.path)


@pytest.mark.usefixtures("first_is_best")
@pytest.mark.parametrize("harm", ["flipped", "gone", "of another epoch"])
def test_a_damaged_student_is_written_anew(harm: str, tmp_path: Path) -> None:
    run = train(tmp_path / "run", data=MANY, **TWO)
    file = run / "student.safetensors"
    before = file.read_bytes()
    if harm == "gone":
        file.unlink()
    elif harm == "flipped":
        file.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    else:
        file.write_bytes((train(tmp_path / "few", **TWO) / file.name).read_bytes())
    again = Run(run)
    for _ in again.train():
        pass
    assert file.read_bytes() == before
    last = {name: x.clone() for name, x in again.method.state_dict().items()}
    again.load_weights("last")
    torch.testing.assert_close(last, dict(again.method.state_dict()), rtol=0, atol=0)


@pytest.mark.long
@pytest.mark.usefixtures("first_is_best")
def test_one_network_has_one_number_everywhere(tmp_path: Path) -> None:
    options = "--student resnet14 --network resnet8 --method dml --epochs 2 --threads 1"
    done = codistill(
        "train", *options.split(), "--data.val_fraction", "0.2", "--out", tmp_path / "run"
    )
    (said,) = re.findall(r"^ +peer0, resnet14: 0.18 M parameters, 0.7 MB, (.*)$", done.stdout, re.M)
    top1 = re.fullmatch(r"test top-1 ([\d.]+) % in epoch 1", said)[1]
    evaluated = codistill("evaluate", tmp_path / "run").stdout
    assert re.search(rf"^peer0 +{top1} ", evaluated, re.M)
    assert "peer0 is the network in student.safetensors" in evaluated
    assert (
        "is the network in"
        not in codistill("evaluate", tmp_path / "run", "--weights", "last").stdout
    )
    student = load_student(tmp_path / "run" / "student.safetensors")
    analysis = analyse(tmp_path / "run", weights="best", pictures=0, similarity_images=0)
    assert analysis.kept == student.about["classifier"] == "peer0"
    assert f"{100 * analysis.predictions.right('peer0').float().mean():.2f}" == top1


def kept(method: str, keep: str = "auto", student: str | None = None, **settings: object) -> list:
    config = Config(
        method={"name": method}, network="resnet8", keep=keep, student=student, **settings
    )
    built, config = build_with_student(config, 10, (8, 8))
    places = {name: kept.k for name, kept in built.students().items()}
    return [config.networks(), names_kept(config, places, parameter_counts(built))]


@pytest.mark.parametrize(
    ("arguments", "networks", "names"),
    [
        ({"method": "dml"}, "8 8", "peer0 peer1"),
        ({"method": "dml", "student": "resnet14"}, "14 8", "peer0"),
        ({"method": "dml", "student": "resnet14", "keep": "best"}, "14 8", "peer0 peer1"),
        ({"method": "dml", "student": "resnet14", "keep": "smallest"}, "14 8", "peer1"),
        ({"method": "dml", "student": "resnet14", "keep": "peer1"}, "14 8", "peer1"),
        ({"method": "dml", "student": "resnet8"}, "8 8", "peer0 peer1"),
        ({"method": "okddip", "student": "resnet14", "peers": 3}, "8 8 14", "leader"),
        ({"method": "okddip", "peers": 3}, "8 8 8", "leader"),
        ({"method": "switokd", "student": "resnet14"}, "14 8", "peer0"),
        ({"method": "pcl", "student": "resnet8"}, "8 8", "mean_teacher0 mean_teacher1 peer0 peer1"),
        ({"method": "pcl", "keep": "peer1"}, "8 8", "mean_teacher1 peer1"),
        ({"method": "independent", "student": "resnet14", "peers": 1}, "14", "peer0"),
    ],
)
def test_the_peer_that_ships_is_the_one_asked_for(
    arguments: dict, networks: str, names: str
) -> None:
    assert kept(**arguments) == [
        [f"resnet{depth}" for depth in networks.split()],
        names.split(),
    ]


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ({"method": "okddip", "peers": 3, "keep": "peer0"}, "'okddip' keeps leader: leave out"),
        ({"method": "switokd", "keep": "peer1"}, "'switokd' keeps peer0: leave out --keep"),
        ({"method": "dml", "keep": "student"}, "no student is named: give --student NAME"),
        ({"method": "dml", "keep": "largest"}, "give best, smallest, student, or peer0"),
    ],
)
def test_a_peer_that_cannot_ship_is_refused(arguments: dict, answer: str) -> None:
    with pytest.raises(InputError, match=answer):
        kept(**arguments)


@pytest.mark.parametrize(
    ("options", "networks"),
    [
        ("--student resnet14", "14 14"),
        ("--student resnet14 --peers 3", "14 14 14"),
        ("--student resnet14 --network resnet8,resnet20", "14 8 20"),
        ("--student resnet14 --network resnet8,resnet14", "8 14"),
        ("--student resnet14 --network resnet8 --peers 3", "14 8 8"),
        ("--network resnet8,resnet14,resnet20", "8 14 20"),
    ],
)
def test_the_student_and_its_company_make_the_peers(options: str, networks: str) -> None:
    config = parse_config(["--method", "dml", *options.split()], "codistill train")
    assert config.networks() == [f"resnet{depth}" for depth in networks.split()]
    assert config.peers == len(config.networks())


def test_company_of_another_number_is_refused() -> None:
    with pytest.raises(
        InputError, match="3 entries beside the student, but peers is 3: give --peers 4"
    ):
        Config(student="resnet8", network="vgg16,resnet14,resnet20", peers=3)
