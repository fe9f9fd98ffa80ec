"""Runs that end early, take the first steps alone, or keep an average."""

import pytest
import torch
from runs_of import tiny_config, train

from codistill import DML, Config, InputError, evaluate
from codistill.runs.finished import load_result
from codistill.runs.results import RunScores, out_of_patience
from codistill.runs.run import Run
from codistill.settings.build_method import length_of
from codistill.settings.data_config import DataConfig
from codistill.tensor_files import read_weights

FEW = {"method": {"name": "dml"}, "limit_steps": 2, "batch_size": 64}


def history_of(*scores):
    return [{} if score is None else {"val/top1/peer0": float(score)} for score in scores]


@pytest.mark.parametrize(
    ("scores", "over"),
    [
        ([], False),
        ([1, 2, 3], False),
        ([3, 2], False),
        ([3, 2, 3], True),
        ([3, None, 2], False),
        ([3, None, 2, 1], True),
        ([1, 1, 2], False),
    ],
)
def test_patience_counts_evaluations_since_the_best(scores, over):
    assert out_of_patience(history_of(*scores), ["peer0"], 2) is over
    assert not out_of_patience(history_of(*scores), ["peer0"], None)


def test_a_run_out_of_patience_ends_as_a_finished_run(tmp_path):
    path = train(tmp_path / "run", **FEW, epochs=40, patience=2, lr=1e-9)  # it learns nothing
    run = Run(path)
    assert run.finished()
    best = RunScores.read(path).student.best_epoch
    assert best is not None
    assert [record["epoch"] for record in run.history()] == [*range(1, best + 3)]
    assert best + 2 < 40
    assert (path / "student.safetensors").exists()
    assert list(run.train()) == []
    (path / "result.json").unlink()  # killed before it was written
    assert list(Run(path).train()) == []
    assert Run(path).finished()
    scores = (path / "result.json").read_bytes()
    (path / "result.json").write_bytes(b"")  # a damaged one is made anew from the checkpoint
    load_result(path)
    assert (path / "result.json").read_bytes() == scores


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "adamww"}, "did you mean 'adamw'"),
        ({"optimizer": "adamw", "optimizer_options": {"beta": 1}}, "does not take these options"),
        ({"freeze": 9}, "freeze is 9, but a network has 3 stages"),
        ({"freeze_epochs": 2}, "nothing is frozen"),
    ],
)
def test_what_cannot_train_is_refused_before_anything_is_written(tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        Run.create(tiny_config(tmp_path / "run", **settings))
    assert not (tmp_path / "run").exists()


def test_patience_needs_held_out_images(tmp_path):
    data = DataConfig("digits", val_fraction=0.0)
    with pytest.raises(InputError, match=r"patience is 2, and no images are held out: give --data"):
        Run.create(tiny_config(tmp_path / "run", data=data, patience=2))


def test_an_epoch_takes_its_first_steps_alone(tmp_path):
    seen = []
    run = Run.create(tiny_config(tmp_path / "run", **FEW))

    def watch(batches):
        assert len(batches) == 2
        for batch in batches:
            seen.append(len(batch.labels))
            yield batch

    for _ in run.train(watch):
        pass
    assert seen == [64] * 4
    assert run.method.__class__ is DML
    assert length_of(run.config, run.data()) == (2, 4)


def test_first_steps_are_taken_up_where_they_were_left(tmp_path):
    whole = train(tmp_path / "whole", **FEW | {"limit_steps": 5})
    run = Run.create(tiny_config(tmp_path / "run", **FEW | {"limit_steps": 5}))
    asked = iter([False] * 3)
    assert list(run.train(stop=lambda: next(asked, True))) == []
    for _ in Run(tmp_path / "run").train():
        pass
    first, second = (read_weights(p / "weights.safetensors")[0] for p in (whole, tmp_path / "run"))
    assert all(torch.equal(x, second[name]) for name, x in first.items())


def test_a_share_of_each_class_is_trained_on(tmp_path):
    run = Run.create(tiny_config(tmp_path / "run", data=DataConfig("digits", fraction=0.1)))
    counts = torch.bincount(run.data().train.split.labels)
    whole = Run.create(tiny_config(tmp_path / "whole")).data()
    assert counts.tolist() == [-(-int(n) // 10) for n in torch.bincount(whole.train.split.labels)]
    assert len(run.data().test.split) == len(whole.test.split)
    with pytest.raises(InputError, match="give one of them"):
        DataConfig("digits", fraction=0.1, images_per_class=3)


def test_a_run_keeps_the_average_of_its_weights(tmp_path):
    options = FEW | {"ema": 0.5, "epochs": 1}
    path = train(tmp_path / "run", **options)
    plain = train(tmp_path / "plain", **FEW | {"epochs": 1})
    of = {p: read_weights(p / "weights.safetensors")[0] for p in (path, plain)}
    assert any(not torch.equal(x, of[plain][name]) for name, x in of[path].items())
    student = read_weights(path / "student.safetensors")[0]
    assert any(
        torch.equal(student["head.2.weight"], of[path][f"peers.heads.{k}.2.weight"]) for k in (0, 1)
    )
    run = Run(path)
    run.load_weights()
    (record,) = run.history()
    assert evaluate(run.method, run.data().test)["top1/peer0"] == record["test/top1/peer0"]


def test_every_option_is_in_the_configuration_of_the_run(tmp_path):
    options = {
        "optimizer": "adamw",
        "optimizer_options": {"betas": [0.9, 0.95]},
        "lr": 1e-3,
        "schedule": "cosine",
        "schedule_unit": "step",
        "warmup_epochs": 1.5,
        "clip_norm": 1.0,
        "accumulate": 2,
        "layer_decay": 0.8,
        "decay_norms": False,
        "ema": 0.9,
        "freeze": 1,
        "freeze_epochs": 1,
        "precision": "fp16",
    }
    path = train(tmp_path / "run", **FEW | options)
    config = Config.read(path / "config.yaml")
    assert {name: getattr(config, name) for name in options} == options
    run = Run(path)
    rates = [record["lr"] for record in run.history()]
    assert rates == pytest.approx([1e-3 * config.lr_at(e, unit=0.5) * 0.8**3 for e in (0.5, 1.5)])
