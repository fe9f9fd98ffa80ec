"""Downloads a file once, and checks it before it gets its name."""

import hashlib
import socket
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError

from torch.hub import download_url_to_file

from codistill.errors import InputError, reason
from codistill.files import refusing_writes, writing_alone, written
from codistill.messages import note

TIMEOUT = 30.0  # seconds without a byte


def download(url: str, target: Path, md5: str) -> Path:
    """Downloads a file unless it is there, and returns its path.

    Args:
        url: address of the file.
        target: path in the cache. Of several processes, one downloads and the others wait.
        md5: published checksum of the file.

    Raises:
        InputError: the file cannot be fetched, is damaged, or cannot be written.
    """
    if not target.exists():
        with writing_alone(target):
            if not target.exists():  # another process may have fetched it in the meantime
                _fetch(url, target, md5)
    return target


def _fetch(url: str, target: Path, md5: str) -> None:
    note(f"downloading {url} to {target}")
    with refusing_writes(target.parent), written(target) as temporary:
        _receive(url, temporary)
        with open(temporary, "rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
        if found.hexdigest() != md5:
            raise InputError(
                f"what {url} sent is damaged or cut off, and was deleted: its MD5 checksum is "
                f"{found.hexdigest()} instead of {md5}; try again later, or give what you have by "
                "--data.root"
            )


def _receive(url: str, file: Path) -> None:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)  # torch.hub would wait for ever
    try:
        download_url_to_file(url, str(file))
    except (URLError, HTTPException, ConnectionError, TimeoutError) as error:
        why = f"HTTP status {error.code}" if isinstance(error, HTTPError) else reason(error)
        raise InputError(
            f"{url} cannot be fetched ({why}): give the archive or its folder by --data.root"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
