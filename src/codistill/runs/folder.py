"""The folder of a run: its settings, its lock, and which files it may hold before a run begins."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from weakref import WeakValueDictionary

from filelock import FileLock, Timeout

from codistill.errors import InputError
from codistill.runs.checkpoints import read_or_restore
from codistill.runs.start_logger import FOLDERS
from codistill.settings.config import Config

CONFIG = "config.yaml"
START = "start.safetensors"


def copy_name(option: str) -> str:
    """The name of a run's own copy of the network that an option of the method names."""
    return f"method_{option}.safetensors"


def read_config(run: Path) -> Config:
    """The settings of a run, by its folder.

    Raises:
        InputError: the folder holds no run, or its settings are damaged.
    """
    return read_or_restore(run / CONFIG, _read_config)


def _read_config(path: Path) -> Config:
    if not path.exists():
        raise InputError(f"{path.parent} holds no run: there is no {CONFIG} in it")
    return Config.read(path)


_kept: WeakValueDictionary[Path, FileLock] = WeakValueDictionary()
"""Locks of folders that this process has made a run in and does not train in yet."""


def lock_folder(path: Path) -> FileLock:
    """Locks a folder until the lock is released or nobody has it, or the process dies.

    Of a folder that this process keeps by `keep_lock`, it returns the lock that is kept.

    Raises:
        InputError: another process has locked the folder, or this one trains in it.
    """
    if kept := _kept.pop(path.resolve(), None):
        return kept
    lock = FileLock(path / ".lock", thread_local=False)  # the system releases it after a kill
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(f"another process is training {path} now") from error
    return lock


def keep_lock(path: Path, lock: FileLock) -> None:
    """Lets the next `lock_folder` of this process have the lock, as long as somebody has it."""
    _kept[path.resolve()] = lock


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Locks a folder, so that no other process trains in it."""
    lock = lock_folder(path)
    try:
        yield
    finally:
        lock.release()


def refuse_occupied(path: Path) -> None:
    """Raises InputError if a new run in the folder would overwrite something."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file: give another folder with --out")
    if any(path.glob("checkpoints/epoch*.pt")) or (path / "result.json").exists():
        raise InputError(
            f"{path} holds another run: continue it with --resume {path}, or give another "
            "folder with --out"
        )
    empty_run = {"config.yaml", "manifest.json", "history.jsonl", "history.csv", ".lock"}
    empty_run |= {"broken_images.txt", "loggers.json"}
    if path.exists():
        for entry in path.iterdir():
            known = entry.name in empty_run | FOLDERS | {"checkpoints"} or (
                (entry.name == START or entry.match(copy_name("*")))
                and (path / "manifest.json").exists()
            )
            if not known and entry.suffix != ".tmp":
                raise InputError(
                    f"{path} is not empty, {entry.name} is in it: give another folder with --out"
                )
