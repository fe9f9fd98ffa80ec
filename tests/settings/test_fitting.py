"""Epochs and a batch size that suit the number of images."""

from pathlib import Path

import pytest
from runs_of import tiny_config

from codistill.runs.run import Run
from codistill.settings.data_config import DataConfig
from codistill.settings.fitting import fitting_batch_size, fitting_epochs


@pytest.mark.parametrize(
    ("images", "batch_size"),
    [(3, 3), (12, 12), (116, 16), (511, 16), (512, 32), (1023, 32), (1024, 64), (10**6, 64)],
)
def test_a_batch_leaves_steps_in_an_epoch(images: int, batch_size: int) -> None:
    assert fitting_batch_size(images) == batch_size


@pytest.mark.parametrize(("steps", "epochs"), [(1, 50), (60, 50), (100, 30), (300, 10), (9000, 10)])
def test_few_images_are_seen_often(steps: int, epochs: int) -> None:
    assert fitting_epochs(steps, pretrained=True) == epochs
    assert fitting_epochs(steps, pretrained=False) == 3 * epochs


def test_a_run_holds_what_suits_its_images(tmp_path: Path) -> None:
    data = DataConfig(images_per_class=20)
    run = Run.create(tiny_config(tmp_path / "run", data=data, epochs=0, batch_size=0))
    assert (run.config.batch_size, run.config.epochs) == (16, 150)
    assert Run(run.path).config == run.config
    assert len(run.data().train) == 13  # of 200 images
    line = "epochs 150 and batch_size 16: to suit 200 images to train on"
    assert line in run.data().taken
    given = Run.create(tiny_config(tmp_path / "given", data=data, epochs=3, batch_size=0)).config
    assert (given.batch_size, given.epochs) == (16, 3)
