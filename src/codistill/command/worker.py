"""`python -m codistill.command.worker RECIPE RUN`: starts or continues a run.

It ends when the process that started it ends, for whatever reason: its standard input is a pipe
from there, which the system then closes. Nothing is lost, since a run continues exactly.
"""

import _thread
import dataclasses
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from codistill.command.main import exit_status
from codistill.command.train import train_with_display
from codistill.settings.config import Config

_SECONDS_TO_END = 10.0


def begin_or_go_on(recipe: Path, path: Path) -> int:
    """Starts a run by its recipe, or continues it with the recipe's device, data root and loggers.

    Returns the exit status; 0 at once if the run is finished.
    """
    from codistill.runs.run import Run

    if (path / "result.json").exists():
        return 0
    config = Config.read(recipe)
    if (path / "config.yaml").exists():
        run = Run(path, config.device, config.data.root, loggers=config.loggers)
    else:
        run = Run.create(dataclasses.replace(config, out=str(path)))
    return train_with_display(run)


def main(argv: Sequence[str]) -> int:
    """`begin_or_go_on` for as long as the process that started this one lives."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    recipe, path = map(Path, argv)
    return exit_status(lambda: begin_or_go_on(recipe, path))


def _end_with_parent() -> None:
    while os.read(0, 1):  # nothing is ever written: it returns when the other end is closed
        pass
    _thread.interrupt_main()
    time.sleep(_SECONDS_TO_END)
    os._exit(130)  # where interrupts are ignored


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
