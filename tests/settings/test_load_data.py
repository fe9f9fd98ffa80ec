"""The data of a run by one call."""

from pathlib import Path

import pytest
import torch
from photo_fakes import write_classes
from toys import sgd

import codistill
from codistill import InputError, Peers, build_network, fit, load_data
from codistill.methods import FFL
from codistill.settings.build_data import build_data
from codistill.settings.config import Config
from codistill.settings.data_config import DataConfig


def test_the_batches_are_those_of_a_run() -> None:
    data = load_data("digits", batch_size=64, seed=3, val_fraction=0.2)
    config = Config(data=DataConfig("digits", val_fraction=0.2), batch_size=64, seed=3)
    run = build_data(config, torch.device("cpu"))
    assert data.val is data.evaluate_on["val"]
    assert data.test is data.evaluate_on["test"]
    assert data.settings == run.settings
    pairs = [(data.train, run.train), (data.val, run.evaluate_on["val"])]
    for ours, theirs in [*pairs, (data.test, run.evaluate_on["test"])]:
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a.views[0], b.views[0])
            assert torch.equal(a.labels, b.labels)
    assert len(next(iter(data.train)).labels) == 64
    assert data.classes == tuple("0123456789")


def test_without_held_out_images_there_is_no_val() -> None:
    assert load_data("digits", val_fraction=0.0).val is None


def test_a_method_trains_on_as_many_views_as_it_needs() -> None:
    method = FFL(Peers([build_network("resnet8", 10) for _ in range(2)], shared=2))
    data = load_data("digits", batch_size=256, views=method.views)
    (record,) = fit(method, data.train, {"test": data.test}, epochs=1, make_optimizer=sgd)
    assert "test/top1/fused" in record


def test_photographs_in_folders_are_streamed(tmp_path: Path) -> None:
    write_classes(tmp_path, {"ant": 8, "bee": 8})
    data = load_data("folder", tmp_path, batch_size=4, image_size=16, workers=0)
    assert data.classes == ("ant", "bee")
    assert next(iter(data.train)).views[0].shape == (4, 3, 16, 16)
    assert data.image_size == (16, 16)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "digit"}, "no data set is called 'digit': did you mean 'digits'?"),
        ({"val_fractoin": 0.1}, "load_data has no setting 'val_fractoin': did you mean 'val_frac"),
        ({"val_fraction": 1.5}, "data.val_fraction is 1.5"),
        ({"image_size": 64}, "data.image_size is not for digits"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_what_makes_no_sense_is_named(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        load_data(**{"name": "digits"} | settings)


def test_load_data_is_public() -> None:
    assert codistill.load_data is load_data
