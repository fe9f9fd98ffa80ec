"""The checkpoints of a run: RUN/checkpoints/*.pt, of which the last few are kept."""

import logging
from pathlib import Path

from codistill import files
from codistill.errors import InputError
from codistill.training.state import Training

_log = logging.getLogger(__name__)


def save(run: Path, training: Training, keep: int) -> None:
    """Keeps where a training is, once its losses and weights are seen to be finite.

    Args:
        run: the folder.
        training: what is kept.
        keep: how many checkpoints are there afterwards at most.
    """
    training.check_losses()
    training.check_weights()
    folder = run / "checkpoints"
    folder.mkdir(exist_ok=True)
    path = folder / f"epoch{training.epoch:05d}_step{training.step:07d}.pt"
    files.write_state(path, training.state_dict())
    for old in _checkpoints(run)[:-keep]:
        old.unlink()


def restore(run: Path, training: Training) -> None:
    """Takes up the last checkpoint that can be read; with none at all, begins at the start."""
    paths = _checkpoints(run)
    for path in reversed(paths):
        try:
            state = files.read_state(path)
            try:
                training.load_state_dict(state)
            except (LookupError, RuntimeError, TypeError, ValueError) as error:
                raise InputError(f"{path} is no checkpoint of this run ({error})") from error
        except InputError as error:
            if path == paths[0]:
                raise
            _log.warning("codistill: note: %s; going on from the one before", error)
        else:
            return


def _checkpoints(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("epoch*.pt"))
