"""Comparisons of the tests: a small one, and a launcher that trains in this process."""

import contextlib
from pathlib import Path
from typing import Any

import yaml
from runs_of import tables_only

from codistill.command.main import exit_status, main
from codistill.command.stopping import Stopping
from codistill.command.worker import begin_or_go_on
from codistill.comparing.planned_runs import PlannedRun

TREE: dict[str, Any] = {
    "settings": {"data": "digits", "peers": 2, "epochs": 1, "batch_size": 128, "threads": 1},
    "networks": ["resnet8"],
    "seeds": [0, 1],
    "methods": {"dml": {}},
}


class Ended:
    def __init__(self, ended: str):
        self.ended = ended

    def poll(self) -> str:
        return self.ended

    def stop(self) -> None:
        pass

    wait = stop


class InThisProcess:
    """Trains a run before it returns, in this process: a launcher for quick tests."""

    def __init__(self) -> None:
        self.started: list[str] = []

    def start(self, run: PlannedRun, place: int) -> Ended:
        self.started.append(run.name)
        run.log.parent.mkdir(exist_ok=True)
        with (
            run.log.open("a") as log,
            contextlib.redirect_stdout(log),
            contextlib.redirect_stderr(log),
        ):
            status = exit_status(lambda: begin_or_go_on(run.recipe, run.path, Stopping()))
        return Ended(f"exit status {status}" if status else "")


def compare(folder: Path, tree: dict[str, Any], *options: str, page: bool = False) -> int:
    """Runs `codistill compare` on a file with this content.

    Without `page` it writes its tables only.
    """
    file = folder / "digits.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    if "--images" not in options:
        options = (*options, "--no-analysis")
    with contextlib.nullcontext() if page else tables_only():
        return main(["compare", str(file), "--out", str(folder / "out"), *options])
