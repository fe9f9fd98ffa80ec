"""Runs that several processes train: one folder, one voice, one end."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from commands_of import TINY
from photo_fakes import write_classes
from ranks import train_one_run, wait_until
from runs_of import progress_of, untimed

from codistill.command.main import main
from codistill.runs.results import RunScores
from codistill.tensor_files import read_state, read_weights

COMMAND = "codistill.command.main:main"
TRAIN = ["train", "--data.name", "digits", *TINY, "--loggers", "none", "--sync_bn", "true"]
TRAIN += ["--nesterov", "false", "--lr", "0.001", "--limit_steps", "6", "--epochs", "2"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert main([*TRAIN, "--out", str(folder)]) == 0
    return folder


def ends(ranks, size, *arguments):
    """The exit status of each process, and what each of them said."""
    with ranks.started(size, COMMAND, list(map(str, arguments))):
        pass
    return ranks.status, ranks.logs()


def assert_alike(one: Path, other: Path) -> None:
    """Two runs that differ by the rounding of sums."""
    for ours, theirs in zip(untimed(one), untimed(other), strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            points = 1.2 if "top" in name or "disagreement" in name else 0.02
            assert ours[name] == pytest.approx(value, abs=points), name
    assert_same_weights(one, other)


def assert_same_weights(one: Path, other: Path) -> None:
    weights, expected = (read_weights(run / "weights.safetensors")[0] for run in (one, other))
    assert weights.keys() == expected.keys()
    for name, x in expected.items():
        torch.testing.assert_close(weights[name], x, rtol=0.02, atol=0.02)


def test_processes_train_one_run(ranks, alone, tmp_path):
    run = tmp_path / "run"
    first = train_one_run(ranks, TRAIN, run)
    assert "2 processes together" in first
    assert f"run:     {run}" in first
    (process,) = json.loads((run / "manifest.json").read_text())["processes"]
    assert process["processes"] == 2
    assert {p.name for p in run.iterdir()} == {p.name for p in alone.iterdir()}
    assert_alike(run, alone)
    assert RunScores.read(run).epochs == 2
    state = read_state(run / "checkpoints" / progress_of(run)[-1])
    assert state["images"] == state["step"] == 0


@pytest.mark.long
@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_photographs_in_pieces(ranks, tmp_path, workers):
    photos = write_classes(tmp_path / "photos", {"ant": 16, "bee": 16, "cow": 16})
    for name in ("ant/004.jpg", "cow/011.jpg", "cow/002.jpg"):
        (photos / name).write_bytes((photos / name).read_bytes()[:300])
    given = ["train", "--data", "folder", "--data.root", str(photos), "--data.image_size", "16"]
    given += ["--network", "resnet8", "--method", "dml", "--batch_size", "8", "--epochs", "1"]
    given += ["--mixup", "0.2", "--class_weights", "balanced", "--data.workers", str(workers)]
    given += ["--data.rand_augment", "3", "--lr", "0.001", "--nesterov", "false"]
    given += ["--sync_bn", "true", "--threads", "1", "--loggers", "none", "--out"]
    assert main([*given, str(tmp_path / "alone")]) == 0
    status, logs = ends(ranks, 2, *given, tmp_path / "run")
    assert status == [0, 0], logs
    assert_same_weights(tmp_path / "run", tmp_path / "alone")
    broken = [(tmp_path / run / "broken_images.txt").read_text() for run in ("run", "alone")]
    assert {*broken[0].splitlines()} == {*broken[1].splitlines()}
    assert len(broken[0].splitlines()) == 3
    assert logs[0].count("is broken") == 3
    (ours,), (theirs,) = untimed(tmp_path / "run"), untimed(tmp_path / "alone")
    assert ours["loss/ce"] == pytest.approx(theirs["loss/ce"], abs=1e-3)
    assert ours["test/nll/peer0"] == pytest.approx(theirs["test/nll/peer0"], abs=0.01)


@pytest.mark.long
def test_a_run_goes_on_with_any_number_of_processes(ranks, alone, tmp_path):
    """A signal to any one process stops all at one step; each number takes what another left."""
    run = tmp_path / "run"
    begin = [*TRAIN, "--checkpoint_seconds", "0.01", "--out", str(run), "--resume", "auto"]
    for size, struck, number in ((2, 1, signal.SIGTERM), (3, 0, signal.SIGUSR1)):
        before = progress_of(run)
        with ranks.started(size, COMMAND, begin) as processes:
            wait_until(lambda before=before: progress_of(run) not in ([], before))
            os.kill(processes[struck], number)
        assert ranks.status == [128 + number] * size, ranks.logs()
        said = ranks.logs()[0]
        assert f"{number.name}: stopped; its last checkpoint is {run}/checkpoints/" in said
        assert not any(log for rank, log in enumerate(ranks.logs()) if rank)
    assert main(["train", "--resume", str(run), "--loggers", "none"]) == 0
    assert_alike(run, alone)
    processes = json.loads((run / "manifest.json").read_text())["processes"]
    assert [process["processes"] for process in processes] == [2, 3, 1]


def test_a_killed_process_ends_the_others(ranks, tmp_path):
    run = tmp_path / "run"
    many = ["--checkpoint_seconds", "0.01", "--epochs", "60", "--method.ramp_up", "1"]
    with ranks.started(3, COMMAND, [*TRAIN, *many, "--out", str(run)]) as processes:
        wait_until(lambda: progress_of(run))
        os.kill(processes[2], signal.SIGKILL)
    assert ranks.status[2] == -9
    assert sorted(ranks.status[:2]) == [1, 2]
    said = "".join(ranks.logs())
    assert said.count("another process of this training has ended, or does not answer") == 1
    assert f"continue with: codistill train --resume {run}" in said
    assert "Traceback" not in said
    assert read_state(run / "checkpoints" / progress_of(run)[-1])["epoch"] < 60


def test_what_cannot_be_used_is_said_once(ranks, tmp_path):
    (tmp_path / "mine.txt").touch()
    status, logs = ends(ranks, 3, *TRAIN, "--out", tmp_path)
    assert status[0] == 2
    assert logs[0].startswith(f"codistill: error: {tmp_path} is not empty, mine.txt is in it")
    assert logs[1:] == ["", ""]
    status, logs = ends(ranks, 2, "train", "--epochs", "many")
    assert sorted(status) == [1, 2]
    assert len([log for log in logs if log]) == 1
    assert "codistill: error: epochs is many" in "".join(logs)
    _, logs = ends(ranks, 2, *TRAIN, "--find_lr")
    assert "--find_lr tries learning rates in one process: leave out torchrun" in "".join(logs)


def test_commands_that_start_processes_do_not_start_under_torchrun(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["compare", "rows.yaml"]) == 2
    assert "compare starts its processes itself: leave out torchrun" in capsys.readouterr().err


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
SIGNALS = ["--signals-to-handle", "SIGTERM,SIGINT,SIGUSR1"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "to"),
    [
        (signal.SIGTERM, "torchrun"),
        (signal.SIGUSR1, "torchrun"),
        (signal.SIGTERM, "process"),
        (signal.SIGKILL, "process"),
    ],
)
def test_torchrun(tmp_path, number, to):
    """Nobody goes on, and a checkpoint is left that another number of processes takes up."""
    run = tmp_path / "run"
    many = ["--checkpoint_seconds", "0", "--epochs", "200", "--out", str(run)]
    with open(tmp_path / "log", "w+") as log:
        command = [*TORCHRUN, *SIGNALS, "-m", "codistill", *TRAIN, *many]
        launcher = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(lambda: progress_of(run), 120)
        processes = psutil.Process(launcher.pid).children(recursive=True)
        workers = [p for p in processes if "codistill" in p.cmdline()]
        assert len(workers) == 2
        (launcher if to == "torchrun" else workers[1]).send_signal(number)
        launcher.wait(60)
        _, left = psutil.wait_procs(processes, 10)
        assert left == []
    said = (tmp_path / "log").read_text()
    assert launcher.returncode == 1
    if number != signal.SIGKILL:
        assert re.search(rf"{number.name}: stopped; its last checkpoint is", said)
    state = read_state(run / "checkpoints" / progress_of(run)[-1])
    assert 0 < state["epoch"] * 6 + state["step"] < 1200


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="it needs two GPUs")
@pytest.mark.parametrize("placement", ["data", "peers"])
def test_two_gpus(tmp_path, placement):
    """By NCCL, against one GPU."""
    train = [*TRAIN, "--shared", "0", "--device", "cuda", "--out"]
    assert main([*train, str(tmp_path / "alone")]) == 0
    command = [*TORCHRUN, "-m", "codistill", *train, str(tmp_path / "run")]
    done = subprocess.run([*command, "--placement", placement], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_alike(tmp_path / "run", tmp_path / "alone")
