"""The checkpoints of a run: RUN/checkpoints/*.pt. The last few are kept."""

from pathlib import Path

from codistill import files
from codistill.errors import InputError
from codistill.messages import note
from codistill.training.state import TrainingState


def save(run: Path, state: TrainingState, keep: int) -> None:
    """Keeps the state of a training, once its losses and weights are seen to be finite.

    Args:
        run: the folder of the run.
        state: the training.
        keep: number of checkpoints to keep, this one among them.
    """
    state.check_losses()
    state.check_weights()
    folder = run / "checkpoints"
    folder.mkdir(exist_ok=True)
    path = folder / f"epoch{state.epoch:05d}_step{state.step:07d}.pt"
    files.write_state(path, state.state_dict())
    for old in _checkpoints(run)[:-keep]:
        old.unlink()


def restore(run: Path, state: TrainingState) -> None:
    """Loads the last checkpoint that can be read. Without any checkpoint it changes nothing."""
    paths = _checkpoints(run)
    for path in reversed(paths):
        try:
            found = files.read_state(path)
            try:
                state.load_state_dict(found)
            except (LookupError, RuntimeError, TypeError, ValueError) as error:
                raise InputError(f"{path} is no checkpoint of this run ({error})") from error
        except InputError as error:
            if path == paths[0]:
                raise
            note(f"{error}; going on from the one before")
        else:
            return


def _checkpoints(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("epoch*.pt"))
