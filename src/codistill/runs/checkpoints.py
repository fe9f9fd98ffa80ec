"""The checkpoints of a run: RUN/checkpoints/*.pt. The last few are kept.

They hold config.yaml and manifest.json too, so that each of these can be made anew.
"""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from codistill import distributed, files, tensor_files
from codistill.errors import InputError
from codistill.files import reading
from codistill.messages import note
from codistill.training.record import Record
from codistill.training.state import TrainingState

_DAMAGED = ".damaged"
_T = TypeVar("_T")


def save(run: Path, state: TrainingState, keep: int, mark: str, texts: Mapping[str, str]) -> None:
    """Keeps the state of a training, once its losses and weights are seen to be finite.

    Several processes call it at the same step, and the first one writes.

    Args:
        run: the folder of the run.
        state: the training.
        keep: number of checkpoints to keep, this one among them.
        mark: the identity of the run, as its manifest has it.
        texts: contents of files of the run by name, for `read_or_restore`.
    """
    state.check_losses()
    state.check_weights()
    content = state.state_dict() | {"run": mark, "files": {**texts}}
    if distributed.rank():
        return
    folder = run / "checkpoints"
    folder.mkdir(exist_ok=True)
    path = folder / f"epoch{state.epoch:05d}_step{state.step:07d}.pt"
    tensor_files.write_state(path, content)
    for old in _checkpoints(run)[:-keep]:
        old.unlink()


def restore(run: Path, state: TrainingState, mark: str) -> None:
    """Loads the last checkpoint of the run that can be read. Changes nothing if there is none.

    Later ones get another name, so that they are not counted among those to keep. Of several
    processes the first one does so before the others look.

    Raises:
        InputError: there are checkpoints, but none can be used; or processes see different ones.
    """
    with distributed.first_alone():
        _restore(run, state, mark)
    places = {*distributed.of_all((state.epoch, state.step))}
    if len(places) > 1:
        raise InputError(
            f"processes see different checkpoints in {run}: put it where all machines see the same "
            "files"
        )


def _restore(run: Path, state: TrainingState, mark: str) -> None:
    paths = _checkpoints(run)
    refused: list[Path] = []
    for path in reversed(paths):
        try:
            found = _read(path, mark)
            with reading(path, "checkpoint of this method"):
                state.load_state_dict(found)
        except InputError as error:
            if path == paths[0]:
                raise InputError(
                    f"{error}; no checkpoint before it is left: put one back, or delete "
                    f"{path.parent} to begin the run again"
                ) from error
            refused.append(path)
            note(f"{error}; continuing from the one before, and calling it {path.name}{_DAMAGED}")
        else:
            for other in refused:
                other.rename(f"{other}{_DAMAGED}")
            return


def last_history(run: Path, mark: str) -> list[Record]:
    """The history in the last checkpoint that can be read.

    Raises:
        InputError: there is none.
    """
    for path in reversed(_checkpoints(run)):
        with contextlib.suppress(InputError), reading(path, "checkpoint"):
            return list(_read(path, mark)["history"])
    raise InputError(f"{run} has no checkpoint that can be read")


def read_or_restore(file: Path, read: Callable[[Path], _T]) -> _T:
    """What `read` returns of a file that checkpoints hold too. One that is gone is made anew.

    Args:
        file: path of the file in the folder of a run.
        read: reads it.

    Raises:
        InputError: `read` raises it. If a checkpoint holds the file, the message says how to get
            that.
    """
    if not file.exists() and (text := _text_of(file)):
        note(f"{file} is gone, and is made anew from the last checkpoint")
        files.write_text(file, text)
    try:
        return read(file)
    except InputError as error:
        if not file.exists() or not _text_of(file):
            raise
        anew = f"or delete {file.name}, and it is made anew from the last checkpoint"
        raise InputError(f"{error}; {anew}") from error


def _text_of(file: Path) -> str | None:
    """The content of a run's file in the last checkpoint that holds it."""
    for path in reversed(_checkpoints(file.parent)):
        with contextlib.suppress(InputError), reading(path, "checkpoint"):
            return str(tensor_files.read_state(path)["files"][file.name])
    return None


def _read(path: Path, mark: str) -> dict[str, Any]:
    found = tensor_files.read_state(path)
    if not isinstance(found, dict) or found.get("run", "") != mark:
        raise InputError(f"{path} is no checkpoint of this run")
    return found


def newest(run: Path) -> Path | None:
    """The last checkpoint of a run, by its folder; None without one."""
    return next(reversed(_checkpoints(run)), None)


def _checkpoints(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("epoch*.pt"))
