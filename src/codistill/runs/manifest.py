"""Where a run comes from: versions, git, machine; and how large its networks are."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("codistill", "torch", "torchvision", "timm", "numpy", "safetensors")


def provenance() -> dict[str, Any]:
    """The command, and the state of the code: that of this package, and that of the folder."""
    return {
        "command": sys.argv,
        "git": {"codistill": commit_of_codistill(), "folder": _git(Path.cwd())},
    }


def commit_of_codistill() -> dict[str, Any] | None:
    """Commit of this package, and whether it was changed since; None where it is no checkout."""
    return _git(Path(__file__).parent, "manifest.py")


def machine(device: torch.device) -> dict[str, Any]:
    """What runs now, on what, since when."""
    return {
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "processor": _processor(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(folder: Path, tracked: str | None = None) -> dict[str, Any] | None:
    """The commit of a folder, and whether it has changes that are not committed.

    None outside a repository, and in one that does not keep the file `tracked`: an environment
    inside somebody's repository is no part of it.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if tracked:
            git("ls-files", "--error-unmatch", tracked)
        changed = git("status", "--porcelain", "--untracked-files=no")
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor()
