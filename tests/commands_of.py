"""Runs the command in a process of its own, as a user does."""

import subprocess
import sys
from pathlib import Path

_TINY = "--network resnet8 --peers 2 --shared 2 --method.ramp_up 1 --epochs 3 --batch_size 64"
TINY = [*_TINY.split(), "--threads", "1"]


def codistill(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The finished command; its output is in `.stdout` and `.stderr`."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, cwd=cwd, timeout=300)


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "codistill", *map(str, arguments)]
