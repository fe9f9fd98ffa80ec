"""Starts the runs of a comparison as processes of this machine, or as jobs of a cluster."""

import dataclasses
import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from codistill.comparing.comparison import Comparison
from codistill.comparing.planned_runs import PlannedRun
from codistill.comparing.processes import ClusterJob, WorkerProcess
from codistill.errors import InputError
from codistill.importing import optional
from codistill.training.device import require_device

LAUNCHERS = ("processes", "slurm", "submitit-local")


@runtime_checkable
class Job(Protocol):
    """A run in training."""

    def poll(self) -> str | None:
        """None while it trains, "" if it ended well, or a line on how it ended."""

    def stop(self) -> None:
        """Asks it to end. It can go on from its checkpoints later."""

    def wait(self) -> None:
        """Waits until it has ended."""


@runtime_checkable
class Launcher(Protocol):
    """Starts runs."""

    def start(self, run: PlannedRun, place: int) -> Job:
        """Starts a run.

        Args:
            run: the run, new or begun before.
            place: number among the runs that train at a time, from 0.
        """


class Processes:
    """Starts processes of this machine, and spreads them over its GPUs.

    Args:
        gpus: names of GPUs for CUDA_VISIBLE_DEVICES. Without any, every process sees all GPUs.
    """

    def __init__(self, gpus: Sequence[str] = ()):
        self.gpus = list(gpus)

    def start(self, run: PlannedRun, place: int) -> Job:
        own = {"CUDA_VISIBLE_DEVICES": self.gpus[place % len(self.gpus)]} if self.gpus else {}
        return WorkerProcess(worker_command(run), run.log, own)


class Submitit:
    """Starts jobs through submitit: SLURM's, or submitit's own processes on this machine.

    Args:
        cluster: "slurm" or "local".
        folder: the comparison's folder.
        parameters: parameters of submitit's executor.
    """

    def __init__(self, cluster: str, folder: Path, parameters: dict[str, Any]):
        submitit = optional("submitit", "the launcher")
        self.folder = folder.absolute()
        try:
            self.executor = submitit.AutoExecutor(self.folder / "logs" / "submitit", cluster)
            self.executor.update_parameters(**{"timeout_min": 24 * 60} | parameters)
        except (RuntimeError, NameError, ValueError, TypeError, AssertionError) as error:
            raise InputError(f"slurm: {error}") from error

    def start(self, run: PlannedRun, place: int) -> Job:
        # One after the other, should jobs of an earlier call still wait: each finds what is done.
        folder = hashlib.sha256(str(self.folder).encode()).hexdigest()[:8]
        name = f"codistill-{folder}-{run.name}"
        try:
            self.executor.update_parameters(name=name, slurm_dependency="singleton")
            job = self.executor.submit(ClusterJob(worker_command(run), run.log.absolute()))
        except (RuntimeError, subprocess.CalledProcessError) as error:
            raise InputError(f"slurm: {error}") from error
        return _SubmittedJob(job)


def worker_command(run: PlannedRun) -> list[str]:
    """The command line that trains a run as long as its standard input is open."""
    places = str(run.recipe.absolute()), str(run.path.absolute())
    return [sys.executable, "-m", "codistill.command.worker", *places]


def gpus_of_this_machine(device: str) -> list[str]:
    """The GPUs over which runs may be spread; none if the settings name a device."""
    if device not in ("auto", "cuda"):
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    return [str(k) for k in range(torch.cuda.device_count())]


class _SubmittedJob:
    def __init__(self, job: Any):
        self.job = job

    def poll(self) -> str | None:
        if not self.job.done():
            return None
        from submitit.core.utils import FailedJobError, UncompletedJobError

        try:
            return self.job.result()
        except FailedJobError as error:
            return f"job {self.job.job_id} failed: {str(error).strip().splitlines()[-1]}"
        except UncompletedJobError as error:
            return " ".join(str(error).split("\n")[:2])  # without the job's output

    def stop(self) -> None:
        self.job.cancel()

    def wait(self) -> None:
        pass  # the cluster ends it


def write_recipe(run: PlannedRun, threads: int | None) -> None:
    """Writes the settings with which a run begins.

    Args:
        run: the run.
        threads: CPU threads of its process, unless the comparison sets them.
    """
    run.recipe.parent.mkdir(parents=True, exist_ok=True)
    config = dataclasses.replace(run.config, threads=run.config.threads or threads)
    config.write(run.recipe)


def launcher_named(name: str, comparison: Comparison, folder: Path) -> Launcher:
    if name == "processes":
        config = comparison.rows[0].config
        require_device(config.device)  # on this machine
        return Processes(gpus_of_this_machine(config.device))
    cluster = "slurm" if name == "slurm" else "local"
    return Submitit(cluster, folder, comparison.slurm)
