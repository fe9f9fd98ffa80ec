"""Runs the command: in this process, in one of its own as a user does, or in copies of one."""

import contextlib
import io
import json
import logging
import os
import select
import subprocess
import sys
from pathlib import Path

_TINY = "--network resnet8 --peers 2 --shared 2 --method.ramp_up 1 --epochs 3 --batch_size 64"
TINY = [*_TINY.split(), "--threads", "1"]


def codistill(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """What the command does in this process, as a finished process: status, stdout, stderr."""
    from codistill.command.main import main

    out, err = io.StringIO(), io.StringIO()
    shown = logging.StreamHandler(err)  # in place of logging's last resort, which pytest turns off
    shown.setLevel(logging.WARNING)
    logging.getLogger().addHandler(shown)
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            contextlib.chdir(cwd or "."),
        ):
            status = main(list(map(str, arguments)))
    finally:
        logging.getLogger().removeHandler(shown)
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())


def command(*arguments: str | Path) -> list[str]:
    """What starts a process of its own."""
    return [sys.executable, "-W", "error", "-m", "codistill", *map(str, arguments)]


class Copies:
    """A process that has imported all that a training needs; copies of it run commands.

    A copy is a process like any other, which can be killed, but starts in no time.
    """

    _CODE = """if True:
        import json, os, sys
        import accelerate, sklearn.datasets, torch._dynamo, torch.utils.tensorboard
        import codistill.methods, codistill.reporting.tables, codistill.runs.run
        from codistill.command.main import main
        for line in sys.stdin:
            arguments, log = json.loads(line)
            if copy := os.fork():
                print(copy, flush=True)
                print(os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]), flush=True)
                continue
            file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, 1), os.dup2(file, 2)
            status = main(arguments)
            sys.stdout.flush()
            os._exit(status)
    """

    def __init__(self) -> None:
        self._original = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", self._CODE],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def start(self, *arguments: str | Path, log: Path) -> None:
        """Starts a command in a copy, which writes what it says to `log`."""
        assert self._original.stdin
        line = json.dumps([list(map(str, arguments)), str(log)])
        self._original.stdin.write(line.encode() + b"\n")
        self._copy = self._answer()

    def ended(self) -> bool:
        return bool(select.select([self._original.stdout], [], [], 0)[0])

    def send(self, number: int) -> int:
        """Sends a signal to the copy, waits for its end and returns its exit status."""
        with contextlib.suppress(ProcessLookupError):  # it has ended in the meantime
            os.kill(self._copy, number)
        return self._answer()

    def close(self) -> None:
        self._original.kill()
        self._original.communicate()

    def _answer(self) -> int:
        assert self._original.stdout
        return int(self._original.stdout.readline())
