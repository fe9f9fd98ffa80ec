"""Every setting reaches what it is meant for."""

from pathlib import Path

import pytest
import torch

from codistill.data import Normalisation, load_dataset
from codistill.errors import InputError
from codistill.methods.method import Method
from codistill.runs.results import RunScores
from codistill.runs.run import Run
from codistill.settings.build_data import build_data
from codistill.settings.build_method import build_method, make_optimizer
from codistill.settings.config import Config
from codistill.settings.data_config import DataConfig

CPU = torch.device("cpu")


def tiny(**changes: object) -> Config:
    settings: dict[str, object] = {
        "method": {"name": "independent"},
        "network": "resnet8",
        "peers": 1,
        "epochs": 4,
        "batch_size": 256,
        "threads": 1,
    }
    return Config(**settings | changes)  # type: ignore[arg-type]


def first_batch(**changes: object) -> torch.Tensor:
    return next(iter(build_data(tiny(**changes), CPU).train)).views[0]


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_optimizer_is_that_of_the_recipe(nesterov: bool) -> None:
    config = tiny(lr=0.3, momentum=0.8, nesterov=nesterov, weight_decay=7e-4)
    method = build_method(config, 10, (32, 32))
    (group,) = method.optimizers(make_optimizer(config, method))["main"].param_groups
    settings = {k: group[k] for k in ("lr", "momentum", "nesterov", "weight_decay")}
    assert settings == {
        "lr": 0.3,
        "momentum": 0.8,
        "nesterov": nesterov,
        "weight_decay": 7e-4,
    }


@pytest.mark.long
def test_the_learning_rate_of_a_run_follows_the_schedule(tmp_path: Path) -> None:
    run = Run.create(tiny(lr=0.2, milestones=[0.5, 0.75], out=str(tmp_path / "run")))
    assert [r["lr"] for r in run.train()] == pytest.approx([0.2, 0.2, 0.02, 0.002])


@pytest.mark.long
def test_the_precision_of_a_run_is_that_of_its_training(tmp_path: Path) -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        out = str(tmp_path / precision)
        (record,) = Run.create(tiny(epochs=1, precision=precision, out=out)).train()
        losses.append(record["loss/ce"])
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


@pytest.mark.long
def test_the_precision_of_an_evaluation_is_set_apart_and_leaves_the_training(
    tmp_path: Path,
) -> None:
    records = []
    for precision in ("fp32", "bf16"):
        out = str(tmp_path / precision)
        (record,) = Run.create(tiny(epochs=1, eval_precision=precision, out=out)).train()
        records.append(record)
    assert records[0]["loss/ce"] == records[1]["loss/ce"]
    assert records[0]["test/nll/peer0"] != records[1]["test/nll/peer0"]
    assert records[0]["test/nll/peer0"] == pytest.approx(records[1]["test/nll/peer0"], rel=0.05)


def test_the_seed_draws_the_weights_the_order_and_the_crops() -> None:
    weights = [build_method(tiny(seed=s), 10, (8, 8)).peers.heads[0][2].weight for s in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(first_batch(seed=0), first_batch(seed=0))
    assert not torch.equal(first_batch(seed=0), first_batch(seed=1))


def test_the_split_seed_draws_what_is_held_out_and_the_seed_does_not() -> None:
    def held_out(**changes: object) -> torch.Tensor:
        return build_data(tiny(**changes), CPU).evaluate_on["val"].split.images

    assert torch.equal(held_out(seed=0), held_out(seed=1))
    other = DataConfig(split_seed=1)
    assert not torch.equal(held_out(), held_out(data=other))


def test_the_augmentation_is_that_of_the_recipe() -> None:
    data = DataConfig(pad=2, pad_mode="zeros", flip=True)
    a = build_data(tiny(data=data), CPU).train.augmentation
    assert a is not None
    assert (a.pad, a.pad_mode, a.flip) == (2, "zeros", True)


def test_the_normalisation_is_that_of_the_training_images_or_of_the_recipe() -> None:
    measured = build_data(tiny(data=DataConfig(val_fraction=0.0)), CPU)
    assert measured.normalisation == Normalisation.of(load_dataset("digits").train)
    given = DataConfig(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0])
    expected = Normalisation((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    data = build_data(tiny(data=given), CPU)
    assert data.normalisation == expected
    for batches in (data.train, *data.evaluate_on.values()):
        assert batches.normalisation == expected


def test_a_small_share_holds_out_one_image_of_each_class() -> None:
    data = build_data(tiny(data=DataConfig(val_fraction=0.001)), CPU)
    assert data.evaluate_on["val"].split.labels.sort().values.tolist() == list(range(10))


class TwoViews(Method):
    """Looks at two views."""

    views = 2
    seen: list[int] = []

    def losses(self, out, labels, epoch):  # type: ignore[no-untyped-def]
        return {"ce": torch.nn.functional.cross_entropy(out.logits[0], labels)}

    def forward(self, views):  # type: ignore[no-untyped-def]
        if self.training:
            TwoViews.seen.append(len(views))
            assert not torch.equal(views[0], views[1])
        return super().forward(views)


def test_a_run_gives_a_method_as_many_views_as_it_wants(tmp_path: Path) -> None:
    method = {"name": "test_assemble:TwoViews"}
    list(Run.create(tiny(method=method, epochs=1, out=str(tmp_path / "run"))).train())
    assert set(TwoViews.seen) == {2}


def test_unknown_options_of_a_method_are_named() -> None:
    with pytest.raises(InputError, match="unexpected keyword argument 'temperatur'"):
        build_method(tiny(method={"name": "dml", "temperatur": 3.0}, peers=2), 10, (8, 8))


def test_the_speed_of_a_run_is_the_median_over_its_epochs() -> None:
    history = [
        {"test/top1/peer0": 1.0, "images_per_second": speed, "seconds": 1.0}
        for speed in (5.0, 100.0, 1.0)
    ]
    assert RunScores.of(history, ["peer0"], 0).images_per_second == 5.0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"milestones": [float("nan")]}, r"milestones is \[nan\]: it has to be finite"),
        ({"milestones": [0.5, 0.0]}, r"milestones is \[0.5, 0.0\]: it has to be above 0"),
        ({"weight_decay": float("inf")}, "weight_decay is inf: it has to be finite"),
        ({"momentum": 1.0}, "momentum is 1.0: it has to be at least 0 and below 1"),
        ({"project": " "}, "project is empty: give a text"),
        ({"loggers": "wandb,"}, "loggers is 'wandb,': an entry of it is empty"),
        ({"threads": 0}, "threads is 0: it has to be above 0"),
        ({"cuda_graphs": True, "recompute": True}, "cuda_graphs cannot record steps that compute"),
    ],
)
def test_values_that_make_no_sense_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=f"^{said}"):
        tiny(**settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mean": [float("inf"), 1.0, 1.0]}, "data.mean is .*: it has to be finite"),
        ({"mean": [1.0]}, r"data.mean is \[1.0\]: give 3 numbers"),
        ({"min_scale": 0.0}, "data.min_scale is 0.0: it has to be above 0 and at most 1"),
        ({"workers": -1}, "data.workers is -1: it has to be at least 0"),
        ({"test_fraction": 0.0}, "data.test_fraction is 0: every run reports on images"),
    ],
)
def test_values_of_the_data_that_make_no_sense_are_refused(
    settings: dict[str, object], said: str
) -> None:
    with pytest.raises(InputError, match=f"^{said}"):
        DataConfig(**settings)  # type: ignore[arg-type]
