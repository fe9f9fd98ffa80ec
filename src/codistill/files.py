"""Files that are written whole or not at all, and read by readers that trust nothing.

Needs no PyTorch. `tensor_files.py` is for tensors.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from codistill import seals
from codistill.errors import InputError, MissingExtraError, reason
from codistill.messages import note

_DEEPEST = 50  # levels of a file of settings
_MOST = 1_000_000  # values in it
_LONGEST = 64  # bits of a whole number


@contextlib.contextmanager
def written(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`, and renames the file to `path` when the block ends.

    So `path` is always a whole file: the new one, or the old one if the block raises or the power
    fails. The file is flushed to the disk before the rename, and its folder after it.

    Raises:
        InputError: `path` is there and no file: the rename would remove a device or a pipe.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is there and no file: give another one")
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        error.filename = str(path)
        raise
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, name):
            error.filename = str(path)
        raise
    if os.name == "posix":  # other systems cannot open a folder, and need not
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a whole file, or leaves the old one: see `written`. Closes its seal, if it has one."""
    with written(path) as temporary:
        temporary.write_bytes(content)
        seals.seal(temporary)


def write_text(path: Path, content: str) -> None:
    """Writes text in UTF-8, as `write_bytes` does; bytes of file names that are none, escaped."""
    write_bytes(path, content.encode(errors="backslashreplace"))


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes indented JSON with a seal, as `write_bytes` does."""
    write_text(path, json.dumps({seals.NAME: seals.OPEN} | content, indent=2) + "\n")


def remove(path: Path) -> None:
    """Removes a file, or a folder with all in it; what is gone already is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turns whatever a parser raises inside into an InputError: a file may hold anything.

    Args:
        path: the file, for the message.
        what: what it should be, for the message.

    Raises:
        InputError: the file cannot be read, or is not what it should be.
    """
    try:
        yield
    except (InputError, MissingExtraError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, FileNotFoundError):
            raise InputError(f"there is no file {path}") from error
        if type(error).__name__ in ("OutOfMemoryError", "AcceleratorError"):  # of PyTorch
            raise  # the device is at fault, not the file
        if isinstance(error, OSError) and error.errno:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error
        raise InputError(f"{path} is damaged or no {what} ({reason(error)})") from error


def read_text(path: Path, what: str = "text", sealed: bool = True) -> str:
    """The text of a file in UTF-8.

    Args:
        path: the file.
        what: what it should be, for messages.
        sealed: whether a broken seal is an error; otherwise it is noted.

    Raises:
        InputError: the file cannot be read, is no text, or is not as it was written.
    """
    with reading(path, what):
        content = path.read_bytes()
        text = content.decode()
    if not seals.text_unbroken(content):
        line = f"if the change is yours, delete its line {seals.NAME!r}"
        if sealed:
            raise InputError(f"{path} is damaged or was edited: put it back as it was; or, {line}")
        note(f"{path} is damaged or was edited since codistill wrote it: {line}")
    return text


def read_json(path: Path) -> Any:
    """Reads what `write_json` wrote, without the seal."""
    content = parse_json(read_text(path), path)
    if isinstance(content, dict):
        content.pop(seals.NAME, None)
    return content


def parse_json(text: str, path: Path) -> Any:
    """The content of JSON that was read from a file, within the limits of `require_small`."""
    with reading(path, "JSON"):
        content = json.loads(text)
        require_small(content)
    return content


def require_small(tree: Any) -> None:
    """Raises ValueError for values that hurt: deep, recursive, huge when written out, long numbers.

    Args:
        tree: dicts, lists and values that a parser returned.
    """
    todo, seen = [(tree, 0)], 0
    while todo:
        value, depth = todo.pop()
        seen += 1
        if depth > _DEEPEST or seen > _MOST:
            raise ValueError("it is nested too deeply, or holds too much")
        if isinstance(value, int) and value.bit_length() > _LONGEST:
            raise ValueError("a whole number in it is too long")
        if isinstance(value, dict):
            todo += [(v, depth + 1) for pair in value.items() for v in pair]
        elif isinstance(value, list | tuple | set):
            todo += [(v, depth + 1) for v in value]


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def place_of(path: str | Path) -> Path:
    """The path that a text names; ~ stands for a home folder.

    Raises:
        InputError: the text can be no path, or nobody's home folder is meant.
    """
    try:
        if "\0" in str(path):
            raise ValueError("it holds the character NUL")
        return Path(path).expanduser()
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{str(path)!r} is no path: {reason(error)}") from error


def cache_folder() -> Path:
    """$CODISTILL_CACHE, or codistill under $XDG_CACHE_HOME, or ~/.cache/codistill."""
    if own := os.environ.get("CODISTILL_CACHE"):
        return place_of(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "codistill"
    try:
        return Path.home() / ".cache" / "codistill"
    except RuntimeError as error:
        raise InputError("no home folder is known: set CODISTILL_CACHE to a folder") from error


def cache_path(name: str, *facts: Any) -> Path:
    """A path in the cache, without suffix, for what is made of these facts: others have another.

    Args:
        name: begins the file's name.
        facts: values for JSON.
    """
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    return cache_folder() / f"{name}-{key}"


def stats_of(files: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Path, bytes and time of change in nanoseconds of each file."""
    return [(str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]


@contextlib.contextmanager
def writing_alone(stem: Path) -> Iterator[None]:
    """Lets one process at a time write the files of this stem; removes what a killed one left.

    Raises:
        InputError: the cache cannot be written.
    """
    with refusing_writes(stem.parent):
        stem.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{stem}.lock")  # the system lets go of it when a process dies
        lock.acquire()
    try:
        for leftover in stem.parent.glob(f".{stem.name}.*.tmp*"):
            leftover.unlink()
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def refusing_writes(folder: Path) -> Iterator[None]:
    """Turns an OSError inside into an InputError that blames the cache, not the data."""
    try:
        yield
    except (OSError, NotImplementedError) as error:  # the latter where a folder knows no locks
        why = getattr(error, "strerror", None) or error
        raise InputError(
            f"the cache {folder} cannot be written ({why}): give another "
            "folder by the environment variable CODISTILL_CACHE"
        ) from error
