"""Networks of other people, fine-tuned as practitioners do it: killed, continued, kept."""

import random
import signal
import time
from pathlib import Path

import pytest
import torch
from commands_of import Copies, codistill
from photo_fakes import write_classes
from runs_of import assert_same_run, progress_of, train

from codistill import Run, load_student
from codistill.tensor_files import read_state

SMALL = "timm/mobilenetv3_small_050", "timm/test_vit,timm/test_convnext"
USUAL = "timm/mobilenetv3_small_100", "timm/vit_tiny_patch16_224,timm/convnext_atto"
RECIPE = (
    "--method dml --pretrained false --optimizer adamw --lr 1e-3 --weight_decay 0.05 "
    "--decay_norms false "
    "--layer_decay 0.75 --ema 0.9 --clip_norm 1 --accumulate 2 --schedule cosine "
    "--schedule_unit step --warmup_epochs 0.5 --data.workers 0 --threads 1 --loggers none "
    "--checkpoint_seconds 0"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("networks", "size", "epochs", "kills"),
    [(SMALL, 32, 1, 1), pytest.param(USUAL, 64, 2, 3, marks=pytest.mark.slow)],
)
def test_a_transformer_and_a_convnext_beside_a_mobilenet_survive_kills(
    networks: tuple[str, str], size: int, epochs: int, kills: int, tmp_path: Path, copies: Copies
) -> None:
    """AdamW with an average, clipped and accumulated: the same bits as without kill -9."""
    photos = write_classes(tmp_path / "photos", {"ant": 12, "bee": 12})
    student, company = networks
    options = f"--student {student} --network {company} --batch_size 8 --epochs {epochs} {RECIPE}"
    start = ["train", photos, *options.split(), "--data.image_size", size]
    whole, killed, log = tmp_path / "whole", tmp_path / "killed", tmp_path / "log"
    done = codistill(*start, "--out", whole)
    assert done.returncode == 0, done.stderr
    assert f"{student}: peer0, the student, " in done.stderr
    rng = random.Random(time.time_ns())  # noqa: S311
    for _ in range(kills):
        before = progress_of(killed)
        resume = ["train", "--resume", killed]
        begun = (killed / "config.yaml").exists()
        copies.start(*(resume if begun else [*start, "--out", killed]), log=log)
        while not copies.ended() and progress_of(killed) == before:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.1))
        assert copies.send(signal.SIGKILL) == -signal.SIGKILL, log.read_text()
    done = codistill("train", "--resume", killed)
    assert done.returncode == 0, done.stderr
    assert_same_run(whole, killed)
    (last,) = sorted((killed / "checkpoints").glob("*.pt"))[-1:]
    averages = [read_state(run / "checkpoints" / last.name)["average"] for run in (whole, killed)]
    torch.testing.assert_close(*averages, rtol=0, atol=0)


@pytest.mark.long
@pytest.mark.parametrize("keep", ["best", "smallest", "student", "peer0", "peer1"])
def test_what_is_kept_of_each_choice_is_the_average(keep: str, tmp_path: Path) -> None:
    path = train(
        tmp_path / "run",
        method={"name": "dml"},
        student="resnet14",
        network="resnet8",
        shared=0,
        keep=keep,
        ema=0.5,
        epochs=1,
        limit_steps=2,
        batch_size=32,
    )
    run = Run(path)
    run.load_weights()
    student = load_student(path / "student.safetensors")
    k = student.about["peer"]
    (record,) = run.history()
    scores = [record[f"val/top1/peer{j}"] for j in (0, 1)]
    places = {
        "best": scores.index(max(scores)),
        "smallest": 1,
        "student": 0,
        "peer0": 0,
        "peer1": 1,
    }
    assert k == places[keep]
    assert student.about["network"] == ("resnet14", "resnet8")[k]
    (file,) = (path / "checkpoints").glob("*.pt")
    state = read_state(file)
    head = student.network.state_dict()["head.2.weight"]
    name = f"peers.heads.{k}.2.weight"
    assert torch.equal(head, state["average"][f"module.{name}"])
    assert not torch.equal(head, state["method"][name])
    averaged = run.method.peers.student(k).state_dict()
    for name, x in student.network.state_dict().items():
        assert torch.equal(x, averaged[name]), name
