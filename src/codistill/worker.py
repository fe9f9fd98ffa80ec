"""`python -m codistill.worker RECIPE RUN`: trains a run to its end, begun or not.

It ends when the process that started it does, however that ends: its standard input is a pipe from
there, and a pipe is closed by the system. A run goes on exactly, so that nothing is lost by it.
"""

import _thread
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from codistill.cli import main as codistill
from codistill.settings.config import Config

_SECONDS_TO_END = 10.0


def arguments(recipe: Path, run: Path) -> list[str]:
    """Those of the command: to begin a run with a recipe, or to go on with it."""
    if not (run / "config.yaml").exists():
        return ["train", "--config", str(recipe), "--out", str(run)]
    config = Config.from_yaml(recipe.read_text())
    places = ["--device", config.device, "--loggers", config.loggers]
    if config.data.root is not None:
        places += ["--data.root", config.data.root]
    return ["train", "--resume", str(run), *places]


def main(argv: Sequence[str]) -> int:
    """As `codistill train`; 0 at once where the run is finished."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    recipe, run = map(Path, argv)
    if (run / "result.json").exists():
        return 0
    return codistill(arguments(recipe, run))


def _end_with_parent() -> None:
    while os.read(0, 1):  # nothing is ever written: it returns when the other end is closed
        pass
    _thread.interrupt_main()
    time.sleep(_SECONDS_TO_END)
    os._exit(130)  # where interrupts are ignored


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
