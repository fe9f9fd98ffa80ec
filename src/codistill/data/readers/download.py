"""Fetches a file once: resumed where it was cut off, checked before it gets its name."""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from codistill.errors import InputError

TIMEOUT = 30.0  # seconds without a byte
TRIES = 5  # connections that may be cut before the user has to ask again
CHUNK = 1 << 18


def download(url: str, target: Path, md5: str) -> Path:
    """The target, fetched unless it is there; what is there has been checked.

    Args:
        url: where it is published.
        target: where it is kept. While incomplete it lies beside it, ending in `.part`.
        md5: its published checksum.
    """
    if target.exists():
        return target
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _only_one_process(target.with_name(target.name + ".lock")):
            if not target.exists():  # another process may have fetched it while this one waited
                _fetch_checked(url, part, md5)
                os.replace(part, target)
    except OSError as error:
        raise InputError(
            f"{target} cannot be written ({error.strerror}): give another folder by the "
            "environment variable CODISTILL_CACHE, or what you have by --data.root"
        ) from error
    return target


def _fetch_checked(url: str, part: Path, md5: str) -> None:
    while True:
        resumed = part.exists() and part.stat().st_size > 0
        _fetch(url, part)
        with open(part, "rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
        if found.hexdigest() == md5:
            return
        part.unlink()
        if not resumed:  # otherwise the old part may be to blame: once more from the start
            raise InputError(
                f"{url} has the MD5 checksum {found.hexdigest()} instead of {md5}: it was deleted; "
                "try again later, or give what you have by --data.root"
            )


def _fetch(url: str, part: Path) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    console = Console(stderr=True)
    with Progress(*columns, TransferSpeedColumn(), console=console) as progress:
        task = progress.add_task(part.name.removesuffix(".part"), total=None)
        for _ in range(TRIES):
            try:
                for done, total in _receive(url, part):
                    progress.update(task, completed=done, total=total)
                return
            except ConnectionAbortedError:
                continue
    raise InputError(
        f"{url} was cut off {TRIES} times, with {part.stat().st_size} bytes kept in {part}: "
        "run the same command again to resume, or give what you have by --data.root"
    )


def _receive(url: str, part: Path) -> Iterator[tuple[int, int | None]]:
    """Appends to the part; yields bytes so far and in all. Raises ConnectionAbortedError if cut."""
    have = part.stat().st_size if part.exists() else 0
    response = _connect(url, have)
    if response is None:  # there is nothing after what is there
        yield have, have
        return
    with response:
        start, total = _extent(response)
        if start != have:  # the server does not resume, or not from here
            start = have = 0
        with open(part, "ab") as file:
            file.truncate(have)
            while data := _read(response):
                file.write(data)
                have += len(data)
                yield have, total
    if total is not None and have < total:
        raise ConnectionAbortedError


def _connect(url: str, have: int) -> HTTPResponse | None:
    request = Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response: HTTPResponse = urlopen(request, timeout=TIMEOUT)
        return response
    except HTTPError as error:
        error.close()
        if error.code == 416 and have:
            return None
        reason: object = f"HTTP status {error.code}"
    except URLError as error:
        reason = error.reason
    except (OSError, HTTPException) as error:
        reason = str(error) or type(error).__name__
    raise InputError(
        f"{url} cannot be fetched ({reason}): give the archive or its folder by --data.root"
    )


def _extent(response: HTTPResponse) -> tuple[int, int | None]:
    """The first byte of what is sent, and the size of the whole where the server says it."""
    found = re.match(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    if response.status == 206 and found:
        return int(found[1]), int(found[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _read(response: HTTPResponse) -> bytes:
    try:
        return response.read1(CHUNK)
    except (OSError, HTTPException) as error:
        raise ConnectionAbortedError from error


@contextlib.contextmanager
def _only_one_process(lock: Path) -> Iterator[None]:
    """Two that append to one part would spoil it. Where there is no flock (Windows): no lock."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
