"""Comparisons whose runs are processes: killed, interrupted, taken up; and jobs of submitit."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands_of import command
from comparisons import TREE, Ended, InThisProcess, compare
from runs_of import assert_same_run, progress_of

from codistill.comparing.comparison import Row, read_comparison
from codistill.comparing.launchers import (
    Processes,
    _SubmittedJob,
    gpus_of_this_machine,
    launcher_named,
)
from codistill.comparing.planned_runs import PlannedRun
from codistill.errors import InputError
from codistill.settings.config import Config

# A checkpoint after every step: runs are slow enough to be met in the middle.
SLOW = TREE | {
    "settings": TREE["settings"] | {"epochs": 4, "checkpoint_seconds": 0.0},
    "seeds": [0],
    "methods": {"dml": {}, "ffl": {"shared": 2, "ramp_up": 1}},
}


def until(happened: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def children_of(pid: int) -> list[int]:
    try:
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except OSError:
        return []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def in_training(out: Path) -> list[Path]:
    """Runs with a checkpoint and without a result."""
    runs = sorted((out / "runs").glob("*"))
    return [r for r in runs if progress_of(r) and not (r / "result.json").exists()]


@pytest.fixture(name="start")
def _start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `codistill compare` on SLOW in a process; ends what is left of it."""
    (tmp_path / "slow.yaml").write_text(yaml.safe_dump(SLOW, sort_keys=False))
    started = []

    def start(*options: str) -> subprocess.Popen[str]:
        places = [tmp_path / "slow.yaml", "--out", tmp_path / "out"]
        arguments = command("compare", *places, "--no-analysis", *options)
        process = subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_comparison_that_is_killed_goes_on_and_ends_with_the_same_bits(
    tmp_path: Path,
    start: Callable[..., "subprocess.Popen[str]"],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The parent with kill -9 while two children train; then one of the children."""
    out = tmp_path / "out"
    parent = start("--parallel", "2")
    until(lambda: len(in_training(out)) == 2 or parent.poll() is not None)
    workers = children_of(parent.pid)
    parent.kill()
    assert len(workers) == 2
    until(lambda: not any(map(alive, workers)), seconds=15)  # nobody is left behind
    assert not list(out.glob("runs/*/result.json")), "the comparison ended before it was killed"

    parent = start("--parallel", "2")
    until(lambda: len(children_of(parent.pid)) == 2 or parent.poll() is not None)
    os.kill(children_of(parent.pid)[0], signal.SIGKILL)
    text, _ = parent.communicate(timeout=240)
    assert parent.returncode == 0, text
    assert "3 runs: 0 finished, 2 started, 1 not started; 2 at a time" in text
    assert "once more: it printed nothing (SIGKILL)" in text
    assert "continues after epoch" in text

    monkeypatch.setattr("codistill.comparing.launchers.launcher_named", lambda *_: InThisProcess())
    (tmp_path / "whole").mkdir()
    assert compare(tmp_path / "whole", SLOW) == 0
    for run in (tmp_path / "whole" / "out" / "runs").iterdir():
        assert_same_run(run, out / "runs" / run.name)
    tables = [
        (folder / "out" / "differences.md").read_text() for folder in (tmp_path, tmp_path / "whole")
    ]
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_a_signal_ends_the_runs_with_their_checkpoints(
    tmp_path: Path, start: Callable[..., "subprocess.Popen[str]"]
) -> None:
    parent = start("--parallel", "1")
    until(lambda: len(in_training(tmp_path / "out")) == 1 or parent.poll() is not None)
    workers = children_of(parent.pid)
    parent.send_signal(signal.SIGTERM)
    text, _ = parent.communicate(timeout=120)
    assert parent.returncode == 143
    assert "Traceback" not in text
    assert "stopped; the same command continues" in text
    assert workers
    assert not any(map(alive, workers))
    (log,) = (tmp_path / "out" / "logs").iterdir()
    assert "the comparison ended: stopped; its last checkpoint is " in log.read_text()
    assert "continue with: codistill train --resume " in log.read_text()


@pytest.mark.slow
def test_jobs_of_submitit_train_and_write_the_same_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit")
    bad = {"name": "dml", "temperature": 1e-38}
    tree = TREE | {"seeds": [0], "methods": {"bad": bad}, "slurm": {"timeout_min": 10}}
    assert compare(tmp_path, tree, "--launcher", "submitit-local") == 1
    said = capsys.readouterr()
    assert "[1/2] independent_resnet8_seed0 finished: test top-1" in said.err
    (line,) = [x for x in said.err.splitlines() if x.startswith("codistill: failed: ")]
    assert "bad_resnet8_seed0: codistill: error: loss term" in line
    assert "(exit status 2)" in line
    assert list((tmp_path / "out" / "logs" / "submitit").glob("*_result.pkl"))
    manifest = tmp_path / "out" / "runs" / "independent_resnet8_seed0" / "manifest.json"
    assert json.loads(manifest.read_text())["command"][0].endswith("worker.py")


SCRIPTS = {
    "sbatch": """
script=${@: -1}
cp "$script" "$0.script"
export SLURM_JOB_ID=$$ SLURM_JOB_NUM_NODES=1 SLURM_NTASKS=1 SLURM_NODEID=0 SLURM_PROCID=0
export SLURM_LOCALID=0 SLURM_JOB_NODELIST=here
bash "$script" >"$0.log" 2>&1 &
echo "Submitted batch job $$"
""",
    "srun": 'while [[ $1 != *python* ]]; do shift; done\nexec "$@"\n',
    "sacct": 'echo "JobID|State|NodeList"\n',
    "scancel": 'echo "$@" >>"$0.log"\n',
    "scontrol": "echo here\n",
}
"""A cluster of one machine, as far as submitit sees it."""


@pytest.mark.slow
def test_jobs_of_a_cluster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    for name, text in SCRIPTS.items():
        script = tmp_path / name
        script.write_text(f"#!/bin/bash\n{text}")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    tree = TREE | {"seeds": [0], "slurm": {"slurm_partition": "gpu", "timeout_min": 7}}
    assert compare(tmp_path, tree, "--launcher", "slurm") == 0
    assert "2 at a time" in capsys.readouterr().err
    assert (tmp_path / "out" / "differences.md").exists()
    submitted = (tmp_path / "sbatch.script").read_text()
    for line in ("--dependency=singleton", "--partition=gpu", "--time=7"):
        assert f"#SBATCH {line}\n" in submitted
    assert re.search(r"--job-name=codistill-[0-9a-f]{8}-dml_resnet8_seed0\n", submitted)
    (tmp_path / "sbatch").write_text("#!/bin/bash\necho 'invalid partition' >&2; exit 1\n")
    shutil.rmtree(tmp_path / "out")
    assert compare(tmp_path, tree, "--launcher", "slurm") == 2
    assert "codistill: error: slurm: " in capsys.readouterr().err


def test_a_job_that_does_not_end_well_says_how() -> None:
    utils = pytest.importorskip("submitit.core.utils")

    class FakeJob:
        job_id = "7"

        def __init__(self, error: Exception):
            self.error = error

        def done(self) -> bool:
            return True

        def result(self) -> str:
            raise self.error

    lost = utils.UncompletedJobError("Job 7 (task: 0)\nhas not produced any output\nlog\nlog")
    assert _SubmittedJob(FakeJob(lost)).poll() == "Job 7 (task: 0) has not produced any output"
    failed = utils.FailedJobError("Job 7 failed\nTraceback\nOSError: no space left\n")
    assert _SubmittedJob(FakeJob(failed)).poll() == "job 7 failed: OSError: no space left"


def test_parameters_of_the_cluster_are_checked_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit")
    tree: dict[str, Any] = TREE | {"slurm": {"timeout_hours": 10}}
    assert compare(tmp_path, tree, "--launcher", "submitit-local") == 2
    assert "timeout_hours" in capsys.readouterr().err
    assert not (tmp_path / "out" / "runs").exists()


def test_a_worker_does_not_outlive_its_parent() -> None:
    """Nor if it hangs: here it never asks whether to stop."""
    code = (
        "import threading, time, codistill.command.worker as w\n"
        "w._SECONDS_TO_END = 0.2\n"
        "stop = w.Stopping()\n"
        "threading.Thread(target=w._end_with_parent, args=(stop,), daemon=True).start()\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    assert process.poll() is None
    process.stdin.close()
    assert process.wait(10) == 143
    process.stdout.close()


def test_places_take_turns_with_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def process(command: list[str], log: Path, environment: dict[str, str]) -> Ended:
        seen.append(environment.get("CUDA_VISIBLE_DEVICES"))
        return Ended("")

    monkeypatch.setattr("codistill.comparing.launchers.WorkerProcess", process)
    config = Config(network="resnet8")
    run = PlannedRun(Row("ffl", config, "independent", "ffl_resnet8", "ffl"), 0, tmp_path, config)
    for place in range(4):
        Processes(["2", "5", "7"]).start(run, place)
    Processes().start(run, 0)
    assert seen == ["2", "5", "7", "2", None]


def test_a_comparison_looks_for_its_gpu_and_does_not_use_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    tree = TREE | {"settings": TREE["settings"] | {"device": "cuda"}}
    (tmp_path / "file.yaml").write_text(yaml.safe_dump(tree))
    comparison = read_comparison(tmp_path / "file.yaml")
    launcher = launcher_named("processes", comparison, tmp_path)
    assert isinstance(launcher, Processes)
    assert launcher.gpus == ["0"]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(InputError, match="device 'cuda' cannot be used here"):
        launcher_named("processes", comparison, tmp_path)


def test_the_gpus_are_those_that_are_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus_of_this_machine("auto") == ["0", "1", "2"]
    assert gpus_of_this_machine("cuda:1") == []
    assert gpus_of_this_machine("cpu") == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 6")
    assert gpus_of_this_machine("cuda") == ["4", "6"]
