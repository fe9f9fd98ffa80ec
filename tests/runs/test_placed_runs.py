"""Runs of processes that have a peer each: the files of one process, to the byte."""

import json
import os
import signal

import pytest
import torch
from commands_of import TINY, codistill
from ranks import train_one_run, wait_until
from runs_of import progress_of, untimed

from codistill.command.main import main
from codistill.tensor_files import read_state

COMMAND = "codistill.command.main:main"
TRAIN = ["train", "--data.name", "digits", *TINY, "--shared", "0", "--loggers", "none"]
TRAIN += ["--data.val_fraction", "0.2", "--ema", "0.5", "--keep", "peer1"]
TRAIN += ["--limit_steps", "3", "--epochs", "2", "--sync_bn", "true"]
PEERS = ["--placement", "peers"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert main([*TRAIN, "--out", str(folder)]) == 0
    return folder


def assert_same_files(run, alone):
    """All that is kept, but for times and for the random numbers that nobody draws."""
    assert untimed(run) == untimed(alone)
    assert {p.name for p in run.iterdir()} == {p.name for p in alone.iterdir()}
    for file in alone.glob("*.safetensors"):
        assert (run / file.name).read_bytes() == file.read_bytes(), file.name
    states = [read_state(r / "checkpoints" / progress_of(r)[-1]) for r in (run, alone)]
    for name in ("method", "optimizers", "average", "scales", "epoch", "step"):
        torch.testing.assert_close(states[0][name], states[1][name], rtol=0, atol=0)
    assert list(states[0]["method"]) == list(states[1]["method"])


def test_peers_in_processes_train_one_run(ranks, alone, tmp_path):
    run = tmp_path / "run"
    first = train_one_run(ranks, [*TRAIN, *PEERS], run)
    assert "2 processes together, 1 for each peer" in first
    (process,) = json.loads((run / "manifest.json").read_text())["processes"]
    assert (process["processes"], process["placement"]) == (2, "peers")
    assert_same_files(run, alone)


def test_a_run_goes_on_wherever_its_peers_are(ranks, alone, tmp_path):
    """Two processes with a peer each, one with both, two with a peer each, to the same bytes."""
    run = tmp_path / "run"
    begin = [*TRAIN, "--checkpoint_seconds", "0.01", "--out", str(run), "--resume", "auto"]
    for size, options in ((2, PEERS), (1, [])):
        before = progress_of(run)
        with ranks.started(size, COMMAND, [*begin, *options]) as processes:
            wait_until(lambda before=before: progress_of(run) not in ([], before))
            os.kill(processes[-1], signal.SIGTERM)
        assert ranks.status == [128 + signal.SIGTERM] * size, ranks.logs()
    with ranks.started(2, COMMAND, ["train", "--resume", str(run), "--loggers", "none", *PEERS]):
        pass
    assert ranks.status == [0, 0], ranks.logs()
    processes = json.loads((run / "manifest.json").read_text())["processes"]
    found = [(process["processes"], process["placement"]) for process in processes]
    assert found == [(2, "peers"), (1, "data"), (2, "peers")]
    assert_same_files(run, alone)


def test_a_killed_process_ends_the_others(ranks, tmp_path):
    run = tmp_path / "run"
    many = ["--checkpoint_seconds", "0.01", "--epochs", "60", "--method.ramp_up", "1"]
    with ranks.started(2, COMMAND, [*TRAIN, *many, *PEERS, "--out", str(run)]) as processes:
        wait_until(lambda: progress_of(run))
        os.kill(processes[1], signal.SIGKILL)
    assert ranks.status == [2, -9]
    said = "".join(ranks.logs())
    assert said.count("another process of this training has ended, or does not answer") == 1
    assert f"continue with: codistill train --resume {run}" in said
    assert "Traceback" not in said
    state = read_state(run / "checkpoints" / progress_of(run)[-1])
    assert {name.split(".")[2] for name in state["method"] if "heads" in name} == {"0", "1"}


def test_what_cannot_be_divided_is_said_once_and_nothing_is_written(ranks, tmp_path):
    run = tmp_path / "run"
    with ranks.started(2, COMMAND, [*TRAIN, *PEERS, "--shared", "1", "--out", str(run)]):
        pass
    assert sorted(ranks.status) == [1, 2]
    (said,) = [log for log in ranks.logs() if log]
    assert said.startswith("codistill: error: FFL's peers share their first stages (shared is 1)")
    assert not run.exists()


def test_commands_of_one_process_know_no_placement():
    done = codistill(*TRAIN, *PEERS)
    assert done.returncode == 2
    assert "there is one: start with torchrun --nproc-per-node K for K peers" in done.stderr
    done = codistill("compare", "digits", "--methods", "dml", *PEERS)
    assert done.returncode == 2
    assert "--placement is for train under torchrun: compare trains each run" in done.stderr
