"""Offline KD against the formula, written out in float64."""

import json
import shutil

import pytest
import torch
from toys import assert_same_tensors, make, taught, tiny
from written_out import assert_equal_losses, cross_entropy, images, kl

from codistill import InputError, Peers, save_student
from codistill.methods.papers.kd import KD
from codistill.runs.finished import load_results
from codistill.runs.run import Run
from codistill.settings.build_method import network_files
from codistill.settings.config import Config
from codistill.settings.data_config import DataConfig


def expected_losses(z, teacher, labels, T=3.0, weight=1.0):
    return {
        "ce": sum(cross_entropy(z_k, labels) for z_k in z),
        "kd": weight * sum(kl(z_k, teacher.detach(), T) for z_k in z),
    }


@pytest.mark.parametrize("K", [1, 2])
@pytest.mark.parametrize("shared", [0, 2])
def test_every_loss_and_gradient_is_that_of_the_formula(K, shared):
    method = make("kd", shared, K).double()
    (view,), labels = images()
    out = method([view])
    teacher = taught().double().eval()(view)
    losses = method.losses(out, labels, 0)
    assert_equal_losses(losses, expected_losses(out.logits, teacher, labels), [out.logits])


def test_temperature_and_weight_go_into_the_formula():
    method = make("kd", temperature=2.0, kd_weight=0.3).double()
    (view,), labels = images()
    out = method([view])
    expected = expected_losses(out.logits, out.extra["teacher"], labels, T=2.0, weight=0.3)
    assert_equal_losses(method.losses(out, labels, 0), expected, [out.logits])


def test_the_teacher_is_in_eval_mode_and_is_not_trained():
    method = make("kd").double().train()
    before = {n: t.clone() for n, t in method.teacher.state_dict().items()}
    views, labels = images()
    sum(method.losses(method(views), labels, 0).values()).backward()
    assert not any(m.training for m in method.teacher.modules())
    assert all(p.grad is None for p in method.teacher.parameters())
    assert all(torch.equal(t, before[n]) for n, t in method.teacher.state_dict().items())


def test_the_teacher_may_be_a_file_of_another_network(tmp_path):
    from codistill import build_network

    torch.manual_seed(0)
    network = build_network("resnet8", 4).eval()
    about = {"network": "resnet8", "classes": list("abcd")}
    save_student(tmp_path / "teacher.safetensors", network, about)
    method = KD(Peers([tiny()]), tmp_path / "teacher.safetensors").eval()
    views = [torch.randn(2, 3, 8, 8)]
    assert torch.equal(method(views).extra["teacher"], network(views[0]))
    assert torch.equal(
        KD(Peers([tiny()]), str(tmp_path / "teacher.safetensors")).eval()(views).extra["teacher"],
        network(views[0]),
    )


def test_the_peers_are_kept_not_the_teacher():
    method = make("kd")
    assert method.students() == {f"peer{k}": (method.peers, k) for k in range(3)}


def test_a_teacher_of_other_classes_is_refused():
    with pytest.raises(InputError, match="teacher has 7 classes and the peers have 4"):
        KD(Peers([tiny()]), tiny(num_classes=7))


def test_a_teacher_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.safetensors"):
        KD(Peers([tiny()]), tmp_path / "nothing.safetensors")


def test_a_folder_is_answered_with_the_file_in_it(tmp_path):
    with pytest.raises(InputError, match=r"is a folder: give .*student\.safetensors"):
        KD(Peers([tiny()]), tmp_path)


def test_a_network_may_teach_itself():
    network = tiny()
    method = KD(Peers([network]), network)
    assert all(p.requires_grad for p in method.peers.parameters())
    assert not any(p.requires_grad for p in method.teacher.parameters())


def test_without_a_teacher_the_error_says_where_one_comes_from():
    with pytest.raises(InputError, match=r"needs a teacher.*--method.teacher RUN/student"):
        KD(Peers([tiny()]))


def recipe(folder, **method):
    return Config(
        method=method,
        network="resnet8",
        peers=1,
        epochs=2,
        threads=1,
        out=str(folder),
        data=DataConfig(name="digits"),
    )


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A run whose student is a teacher."""
    run = Run.create(recipe(tmp_path_factory.mktemp("teacher") / "a", name="independent"))
    list(run.train())
    return run


@pytest.mark.long
def test_a_run_keeps_its_teacher(teacher, tmp_path, monkeypatch):
    """Relative paths, a teacher that is gone, a run that was moved, a checkpoint in between."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(teacher.path / "student.safetensors", "t.safetensors")
    first = Run.create(recipe(tmp_path / "b", name="kd", teacher="t.safetensors"))
    next(first.train())
    whole = Run.create(recipe(tmp_path / "whole", name="kd", teacher="t.safetensors"))
    list(whole.train())
    (tmp_path / "t.safetensors").unlink()
    (tmp_path / "b").rename(tmp_path / "moved")
    monkeypatch.chdir("/")
    run = Run(tmp_path / "moved")
    (record,) = run.train()
    assert record["test/top1/teacher"] == teacher.history()[-1]["test/top1/peer0"]
    assert_same_tensors(run.method.state_dict(), whole.method.state_dict())
    assert json.loads((run.path / "result.json").read_text())["student"]["last"] == "peer0"


@pytest.mark.long
def test_one_teacher_is_one_setting_wherever_it_lies(teacher, tmp_path):
    runs = []
    for seed in range(2):
        file = tmp_path / f"{seed}.safetensors"
        shutil.copy(teacher.path / "student.safetensors", file)
        config = recipe(tmp_path / f"run{seed}", name="kd", teacher=str(file))
        config.seed, config.epochs = seed, 1
        list(Run.create(config).train())
        runs.append(tmp_path / f"run{seed}")
    (results,) = load_results(runs).values()
    assert len(results) == 2


def test_somebody_elses_file_makes_a_folder_occupied(teacher, tmp_path):
    file = tmp_path / "run" / "method_teacher.safetensors"
    file.parent.mkdir()
    file.write_text("mine")
    config = recipe(tmp_path / "run", name="kd", teacher=str(teacher.path / "student.safetensors"))
    with pytest.raises(InputError, match="is not empty, method_teacher.safetensors is in it"):
        Run.create(config)
    assert file.read_text() == "mine"


def test_an_option_that_names_no_file_is_left_alone(tmp_path):
    assert network_files({"name": "own", "to": "new.safetensors", "mix": "logits"}) == {}
