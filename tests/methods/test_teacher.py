"""Teachers from files: their classes, their images, and those of the data."""

import pytest
import torch
from toys import tiny

from codistill import InputError, Peers, save_student
from codistill.data.normalisation import Normalisation
from codistill.methods import KD, SHAKE
from codistill.methods.teacher import notes_on_teacher
from codistill.networks.build import build_network
from codistill.runs.run import Run
from codistill.settings.config import Config
from codistill.settings.data_config import DataConfig

OURS = list("abcd")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "teacher.safetensors"


def write(file, classes, network="resnet8", **about):
    torch.manual_seed(0)
    teacher = build_network(network, len(classes)).eval()
    save_student(file, teacher, {"network": network, "classes": classes} | about)
    return teacher


@pytest.mark.parametrize("method", [KD, SHAKE])
@pytest.mark.parametrize("network", ["resnet8", "mobilenet_v2"])
def test_classes_in_another_order_are_put_in_order(file, method, network):
    teacher = write(file, list("dabc"), network)
    peers = Peers([tiny()], classes=OURS)
    views = [torch.randn(2, 3, 32, 32)]
    found = method(peers, file).eval()(views).extra["teacher"]
    assert torch.allclose(found, teacher(views[0])[:, [1, 2, 3, 0]], atol=1e-5)


@pytest.mark.parametrize("classes", ["abcd", "wxyz", "awcz"])
def test_other_names_at_the_same_places_change_nothing(file, classes):
    teacher = write(file, list(classes))
    views = [torch.randn(2, 3, 32, 32)]
    found = KD(Peers([tiny()], classes=OURS), file).eval()(views).extra["teacher"]
    assert torch.equal(found, teacher(views[0]))


def test_common_names_at_other_places_are_refused_with_both_orders(file):
    write(file, list("bxyz"))
    message = r"classes are 'b', 'x', 'y', 'z', and those of the data are 'a', 'b', 'c', 'd'"
    with pytest.raises(InputError, match=message):
        KD(Peers([tiny()], classes=OURS), file)


def test_an_order_that_cannot_be_changed_is_refused(file, monkeypatch):
    write(file, list("dbca"))
    monkeypatch.setattr("codistill.networks.classifier.classifiers", lambda network: [])
    with pytest.raises(InputError, match="'d', 'b', 'c', 'a'"):
        KD(Peers([tiny()], classes=OURS), file)


def test_what_the_teacher_saw_otherwise_is_said(file):
    about = {"mean": [125.0] * 3, "std": [60.0] * 3, "image_size": [32, 32]}
    same = OURS, Normalisation((125.0, 124.0, 125.0), (60.0, 60.0, 61.0)), (32, 32)
    write(file, OURS, **about)
    assert notes_on_teacher(file, *same) == []
    other = notes_on_teacher(file, OURS, Normalisation((100.0,) * 3, (60.0,) * 3), (64, 48))
    assert [note.partition(": ")[2] for note in other] == [
        "its images had the mean 125.0 125.0 125.0, these have 100.0 100.0 100.0",
        "it was trained on images of 32x32, and these are 64x48",
    ]
    write(file, list("dbca"), **about)
    assert "in another order" in notes_on_teacher(file, *same)[0]
    write(file, list("wxyz"), **about)
    assert (
        "called 'w', 'x', 'y', 'z', and those of the data 'a', 'b', 'c', 'd'"
        in (notes_on_teacher(file, *same)[0])
    )


def test_a_run_orders_its_teacher_and_says_so(file, tmp_path):
    names = [str(digit) for digit in range(10)]
    teacher = write(file, names[::-1])
    config = Config(
        method={"name": "kd", "teacher": str(file)},
        network="resnet8",
        peers=1,
        out=str(tmp_path / "run"),
        data=DataConfig(name="digits"),
    )
    run = Run.create(config)
    images = torch.randn(2, 3, 8, 8)
    for method in (run.method, Run(run.path).method):
        found = method.eval()([images]).extra["teacher"]
        assert torch.allclose(found, teacher(images).flip(1), atol=1e-5)
    assert any("another order" in note for note in run.data().notes)
