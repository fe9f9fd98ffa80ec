"""Starts functions in several real processes that train together, as torchrun would."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import codistill

_CODE = """if True:
    import importlib, json, os, signal, sys, traceback
    import torch, torch._dynamo, torch.distributed.rendezvous
    import codistill.methods, codistill.runs.run, codistill.reporting.tables, distributed_cases
    import codistill.training.fit, accelerate, sklearn.datasets
    for line in sys.stdin:
        size, function, arguments, folder, port = json.loads(line)
        processes = []
        for rank in range(size):
            if copy := os.fork():
                processes.append(copy)
                continue
            sys.stdin = open(os.devnull)
            file = os.open(f"{folder}/{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, 1), os.dup2(file, 2)
            names = "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"
            os.environ |= dict(zip(names, map(str, (rank, size, rank, size))))
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            module, _, name = function.partition(":")
            try:
                result = getattr(importlib.import_module(module), name)(*arguments)
                torch.save(result, f"{folder}/{rank}.pt")
                status = result if type(result) is int else 0
            except SystemExit as error:
                status = error.code
            except BaseException:
                traceback.print_exc()
                status = 1
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(status)
        print(json.dumps(processes), flush=True)
        status = [os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]) for p in processes]
        print(json.dumps(status), flush=True)
"""


class Ranks:
    """A process that has imported all that a training needs; copies of it are the processes."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._calls = folder, 0
        places = [Path(__file__).parent, Path(codistill.__file__).parents[1]]
        path = os.pathsep.join([*map(str, places), os.environ.get("PYTHONPATH", "")])
        self._original = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _CODE],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ
            | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "TORCH_CPP_LOG_LEVEL": "ERROR"},
        )

    @contextlib.contextmanager
    def started(self, size: int, function: str, *arguments: Any) -> Iterator[list[int]]:
        """The processes of a function, which have ended after the block.

        Args:
            size: number of processes.
            function: module:name.
            arguments: what JSON can say.
        """
        self._calls += 1
        self.folder = self._folder / str(self._calls)
        self.folder.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        line = json.dumps([size, function, list(map(_plain, arguments)), str(self.folder), port])
        assert self._original.stdin
        assert self._original.stdout
        self._original.stdin.write(line.encode() + b"\n")
        processes = json.loads(self._original.stdout.readline())
        watch = subprocess.Popen(["sleep", "120"])  # a test that hangs ends
        try:
            yield processes
            self.status = self._ended(processes, watch)
        except BaseException:
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            raise
        finally:
            watch.kill()
            watch.wait()

    def _ended(self, processes: list[int], watch: "subprocess.Popen[bytes]") -> list[int]:
        import select

        assert self._original.stdout
        while not select.select([self._original.stdout], [], [], 0.5)[0]:
            if watch.poll() is not None:
                for process in processes:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
        status: list[int] = json.loads(self._original.stdout.readline())
        return status

    def run(self, size: int, function: str, *arguments: Any) -> list[Any]:
        """What the function returns in each process."""
        with self.started(size, function, *arguments):
            pass
        assert self.status == [0] * size, self.logs()
        return [torch.load(self.folder / f"{r}.pt", weights_only=False) for r in range(size)]

    def logs(self) -> list[str]:
        """What each process of the last call said."""
        return [file.read_text() for file in sorted(self.folder.glob("*.log"))]

    def close(self) -> None:
        self._original.kill()
        self._original.communicate()


def train_one_run(ranks: Ranks, arguments: list[str], run: Path) -> str:
    """What the first of two processes says that train one run; the other one says nothing."""
    command = [*arguments, "--out", str(run)]
    with ranks.started(2, "distributed_cases:one_writer", command):
        pass
    (first, second), status = ranks.logs(), ranks.status
    assert status == [0, 0], (first, second)
    assert second == ""
    assert first.count("epoch 2/2") == 1
    return first


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def wait_until(what: Any, seconds: float = 60.0) -> None:
    """Returns when `what()` is true."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.02)
