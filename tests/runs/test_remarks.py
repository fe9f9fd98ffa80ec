"""Remarks on settings that are probably not meant."""

from pathlib import Path

import pytest
import torch
from data_fakes import make_fake, write_class_folders
from runs_of import tiny_config

from codistill.data.by_name import load_dataset
from codistill.methods.papers.dml import DML
from codistill.networks import build_network
from codistill.networks.peers import Peers
from codistill.runs.remarks import remarks, warnings_about
from codistill.runs.run import Run
from codistill.settings.config import Config
from codistill.settings.data_config import DataConfig

PHOTOS = DataConfig("folder", image_size=224, mean=[123.7, 116.3, 103.5])
ALIKE = "timm/resnet18,timm/mobilenetv3_small_050"


@pytest.fixture(scope="module")
def method() -> DML:
    torch.manual_seed(0)
    return DML(Peers([build_network("resnet8", 10) for _ in range(2)]))


@pytest.mark.parametrize(
    ("settings", "remark"),
    [
        ({"network": "resnet32"}, "resnet32: made for images of 32x32. At 224x224 a step takes 49"),
        ({"network": "resnet32", "data": DataConfig("folder", image_size=64)}, ""),
        ({"network": "resnet32", "data": DataConfig()}, ""),
        ({"network": ALIKE}, ""),
        ({"network": ALIKE, "pretrained": True, "lr": 0.01}, ""),
        ({"network": ALIKE, "pretrained": True}, "lr 0.1 is for networks that start from nothing"),
        (
            {"network": "timm/vit_tiny_patch16_224", "pretrained": True, "lr": 0.01},
            "want images of mean 127.5 127.5 127.5, and these are normalised by 123.7 116.3 103.5",
        ),
    ],
)
def test_networks_that_do_not_suit_are_remarked(method: DML, settings: dict, remark: str) -> None:
    config = Config(**{"method": {"name": "dml"}, "data": PHOTOS} | settings)
    found = [*remarks(method, config)]
    assert len(found) == bool(remark)
    assert remark in "".join(found)


def warned(out: Path, data: DataConfig, **settings: object) -> str:
    return "\n".join(warnings_about(Run.create(tiny_config(out, data=data, **settings))))


def test_numbers_that_do_not_suit_are_remarked(tmp_path: Path) -> None:
    assert warned(tmp_path / "usual", DataConfig()) == ""
    few = warned(tmp_path / "few", DataConfig(val_fraction=0.02))
    assert "20 images are held out, and each is 5.0 points of accuracy" in few
    one = warned(tmp_path / "one", DataConfig(images_per_class=4))
    assert "an epoch is one step: batch_size 128 takes all 40 images to train on" in one
    assert "give --batch_size 16, or 0" in one


def test_a_part_of_a_published_data_set_is_remarked(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    write_class_folders(tmp_path / "part", make_fake("cifar10"))
    data = DataConfig("cifar10", str(tmp_path / "part"))
    count = sum(map(len, load_dataset("cifar10", data.root).splits.values()))
    found = warned(tmp_path / "run", data, shared=0)
    assert f"cifar10 has 60,000 images as published, and {count} here" in found
