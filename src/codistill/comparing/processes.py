"""A worker process, and a cluster's job that runs one. Without PyTorch, so that jobs start fast."""

import dataclasses
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from codistill import clock

HEAD = "---"
"""Marks the line with which each process begins in a log."""
_SECONDS_TO_END = 75.0  # longer than a worker takes


class WorkerProcess:
    """A worker process. It ends when its pipe from this process is closed."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]):
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as file:
            began = f"{clock.now().astimezone():%Y-%m-%d %H:%M:%S}"
            file.write(f"{HEAD} {began}, {' '.join(command)}\n")
            file.flush()
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,  # Ctrl-C is for us, who then end the workers
            )

    def poll(self) -> str | None:
        status = self.process.poll()
        if status is not None:
            self.stop()
        if not status:
            return "" if status == 0 else None
        return f"exit status {status}" if status > 0 else signal.Signals(-status).name

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def wait(self) -> None:
        try:
            self.process.wait(_SECONDS_TO_END)
        except BaseException as error:  # it hangs, or a second signal ends all at once
            self.process.kill()
            self.process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise


@dataclasses.dataclass
class ClusterJob:
    """The work of a cluster's job. When its time is over it is queued again, and goes on.

    Args:
        command: command line of the worker.
        log: file of its output.
    """

    command: list[str]
    log: Path

    def __call__(self) -> str:
        """Runs the worker, and returns what `Job.poll` returns at its end."""
        process = WorkerProcess(self.command, self.log, {})
        try:
            process.process.wait()
        finally:  # as when submitit ends a job
            process.stop()
            process.wait()
        return process.poll() or ""

    def checkpoint(self) -> Any:
        """Called by submitit before it stops a job; returns the job to submit in its place."""
        import submitit

        return submitit.helpers.DelayedSubmission(ClusterJob(self.command, self.log))
