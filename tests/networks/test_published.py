"""Published weights come from a cache, or one line says at once that they cannot be had."""

import socket
import time
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from commands_of import codistill
from photo_fakes import write_classes
from safetensors.torch import save_file

from codistill import Run, load_student
from codistill.errors import InputError
from codistill.importing import optional
from codistill.networks.build import build_network
from codistill.settings.build_method import build_method
from codistill.settings.config import Config

NAME = "mobilenetv3_small_050"
SIZE = 32, 32


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches of the Hub and of torch.hub, and no way out."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch"))

    def refused(*_: object) -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket, "create_connection", refused)
    return tmp_path


def weights(name: str = NAME) -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    timm = optional("timm", "this test")
    return timm.create_model(name).state_dict()


def put_into_the_hub(
    caches: Path, file: str = "model.safetensors", name: str = f"{NAME}.lamb_in1k"
) -> dict[str, torch.Tensor]:
    state = weights(name.partition(".")[0])
    folder = caches / "hub" / f"models--timm--{name}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    place = folder / "snapshots" / "abc" / file
    save_file(state, place) if file.endswith("rs") else torch.save(state, place)
    return state


def assert_loaded(state: dict[str, torch.Tensor]) -> None:
    found = build_network(f"timm/{NAME}", 3, image_size=SIZE, pretrained=True).original_state_dict()
    for name, x in state.items():
        if not name.startswith("classifier"):
            assert torch.equal(found[name], x), name


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_weights_in_the_cache_of_the_hub_need_no_connection(caches: Path, file: str) -> None:
    assert_loaded(put_into_the_hub(caches, file))


def test_a_classifier_drawn_for_published_weights_is_no_larger_than_pytorch_draws_it(
    caches: Path,
) -> None:
    """The library draws it from the number of classes: up to 0.58 for three."""
    state = put_into_the_hub(caches)

    def largest(num_classes: int, pretrained: bool) -> float:
        network = build_network(f"timm/{NAME}", num_classes, image_size=SIZE, pretrained=pretrained)
        layer = network.original_state_dict()["classifier.weight"]
        if num_classes == 1000:
            assert torch.equal(layer, state["classifier.weight"])
        return float(layer.abs().max())

    assert 0.9 * 1024**-0.5 < largest(3, pretrained=True) <= 1024**-0.5
    assert 0.9 * 3**-0.5 < largest(3, pretrained=False) <= 3**-0.5
    state["classifier.weight"] *= 100  # what was trained stays
    save_file(state, next(caches.glob("hub/*/snapshots/abc/model.safetensors")))
    assert largest(1000, pretrained=True) > 1


def test_weights_in_the_cache_of_torch_hub_need_no_connection(caches: Path) -> None:
    state = weights()
    (caches / "torch" / "checkpoints").mkdir(parents=True)
    torch.save(state, caches / "torch" / "checkpoints" / "mobilenetv3_small_050_lambc-4b7bbe87.pth")
    assert_loaded(state)


@pytest.mark.usefixtures("caches")
@pytest.mark.parametrize(
    ("network", "host"),
    [(f"timm/{NAME}", "huggingface.co"), ("torchvision/resnet18", "download.pytorch.org")],
)
def test_without_a_connection_one_line_comes_at_once(network: str, host: str) -> None:
    began = time.monotonic()
    with pytest.raises(InputError) as refused:
        build_network(network, 3, image_size=SIZE, pretrained=True)
    assert str(refused.value) == (
        f"the published weights of {network} are in no cache, and {host} cannot be reached "
        "(Connection refused): give --pretrained false to start from nothing, or --weights FILE "
        "if you have a file of them"
    )
    assert time.monotonic() - began < 20  # under 1 on an idle machine


@pytest.mark.usefixtures("caches")
def test_a_host_that_does_not_answer_is_given_up_in_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("codistill.networks.cutting.published._SECONDS", 0.01)

    def silent(*_: object) -> None:
        time.sleep(1)
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", silent)
    with pytest.raises(InputError, match=r"cannot be reached \(no answer\)"):
        build_network(f"timm/{NAME}", 3, image_size=SIZE, pretrained=True)


@pytest.mark.usefixtures("caches")
def test_a_file_of_weights_takes_the_place_of_the_published(tmp_path: Path) -> None:
    state = weights()
    torch.save(state, tmp_path / "own.pth")
    config = Config(
        method={"name": "independent"},
        network=f"timm/{NAME}",
        peers=1,
        pretrained=True,
        weights=str(tmp_path / "own.pth"),
    )
    peer = build_method(config, 3, SIZE).peers.student(0).original_state_dict()
    assert torch.equal(peer["conv_stem.weight"], state["conv_stem.weight"])


@pytest.mark.long
def test_photographs_go_from_a_folder_to_a_student(
    caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe `photos`, made small: weights of the cache, one network, two epochs."""
    put_into_the_hub(caches)
    write_classes(caches / "photos", {"ant": 12, "bee": 12})
    monkeypatch.chdir(caches)
    small = f"--student timm/{NAME} --network timm/{NAME} --config photos --data.image_size 32"
    options = f"photos {small} --epochs 1 --threads 1 --data.workers 0 --out run"
    done = codistill("train", *options.split())
    assert done.returncode == 0, done.stderr
    assert (
        f"images    {caches}/photos is a folder of class folders: 24 images, 2 classes"
        in done.stderr
    )
    assert "batch_size 16: to suit 18 images to train on" in done.stderr
    assert f"timm/{NAME}: peer0, peer1, the student, " in done.stderr
    assert f"peer0, timm/{NAME}: 0." in done.stdout or f"peer1, timm/{NAME}: 0." in done.stdout


@pytest.mark.slow
def test_the_whole_recipe_for_photographs_starts_from_published_weights(
    caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`codistill train photos` without an option that changes what is learned."""
    names = "mobilenetv3_small_100.lamb_in1k", "mobilenetv3_large_100.ra_in1k"
    published = [put_into_the_hub(caches, name=name) for name in names]
    write_classes(caches / "photos", {"ant": 40, "bee": 40}, width=300, height=260)
    monkeypatch.chdir(caches)
    done = codistill("train", "photos", "--epochs", "1", "--out", "run")
    assert done.returncode == 0, done.stderr
    assert "batch_size 16: to suit 58 images to train on" in done.stderr
    assert "timm/mobilenetv3_small_100: peer0, the student, 1.52 M parameters" in done.stderr
    assert "timm/mobilenetv3_large_100: peer1, 4.2" in done.stderr
    run = Run(caches / "run")
    c = run.config
    assert (c.optimizer, c.schedule, c.schedule_unit, c.epochs) == ("adamw", "cosine", "step", 1)
    for k, state in enumerate(published):  # as the run begins
        start = run.method.peers.student(k).original_state_dict()
        for name, x in state.items():
            if not name.startswith("classifier"):
                assert torch.equal(start[name], x), name
    student = load_student(caches / "run" / "student.safetensors")
    assert student.about["network"] == "timm/mobilenetv3_small_100"
    assert student(caches / "photos" / "ant" / "000.jpg").isfinite().all()


def test_without_a_recipe_or_networks_photographs_get_their_own(
    caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_classes(caches / "photos", {"ant": 12, "bee": 12})
    monkeypatch.chdir(caches)
    done = codistill("train", "photos", "--out", "run")
    said, error = done.stderr.splitlines()
    assert said == "codistill: photographs: the recipe photos, as no --config is given"
    assert error.startswith(
        "codistill: error: the published weights of timm/mobilenetv3_small_100 are in no cache"
    )
    assert not (caches / "run").exists()


@pytest.mark.long
def test_torchvision_finds_its_own_cache(caches: Path) -> None:
    models = optional("torchvision", "this test").models
    file = models.ResNet18_Weights.DEFAULT.url.rpartition("/")[2]
    (caches / "torch" / "checkpoints").mkdir(parents=True)
    state = models.resnet18(num_classes=1000).state_dict()
    torch.save(state, caches / "torch" / "checkpoints" / file)
    network = build_network("torchvision/resnet18", 3, image_size=SIZE, pretrained=True)
    assert torch.equal(network.original_state_dict()["conv1.weight"], state["conv1.weight"])
