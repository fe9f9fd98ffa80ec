"""`python -m codistill.command.worker RECIPE RUN`: starts or continues a run.

It stops with a checkpoint when the process that started it closes a pipe, or ends for whatever
reason: its standard input is that pipe, which the system then closes.
"""

import dataclasses
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from codistill.command.main import exit_status
from codistill.command.stopping import Stopping
from codistill.command.train import train_with_display
from codistill.settings.config import Config

_SECONDS_TO_END = 60.0  # for a step and a checkpoint
_STATUS = 143


def begin_or_go_on(recipe: Path, path: Path, stop: Stopping) -> int:
    """Starts a run by its recipe, or continues it with the recipe's device, data root and loggers.

    Returns the exit status; 0 at once if the run is finished.
    """
    from codistill.runs.folder import read_config
    from codistill.runs.run import Run

    if (path / "result.json").exists():
        return 0
    config = Config.read(recipe)
    if (path / "config.yaml").exists():
        trusted = {*read_config(path).names()} <= {*config.names()}  # else it is another run
        places = config.device, config.data.root
        run = Run(path, *places, loggers=config.loggers, trust_code=trusted)
    else:
        run = Run.create(dataclasses.replace(config, out=str(path)))
    return train_with_display(run, stop)


def main(argv: Sequence[str]) -> int:
    """`begin_or_go_on` for as long as the process that started this one lives."""
    stop = Stopping()
    threading.Thread(target=_end_with_parent, args=(stop,), daemon=True).start()
    recipe, path = map(Path, argv)
    return exit_status(lambda: begin_or_go_on(recipe, path, stop))


def _end_with_parent(stop: Stopping) -> None:
    while os.read(0, 1):  # nothing is ever written: it returns when the other end is closed
        pass
    stop.ask("the comparison ended", _STATUS)
    time.sleep(_SECONDS_TO_END)
    os._exit(_STATUS)  # it hangs


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
