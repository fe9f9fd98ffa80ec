"""Seals: a file holds the SHA-256 of its own content, so that damage is seen when it is read.

The words `codistill sha256: HEX` stand near the beginning of the file, as its format allows: in a
comment, as a key, in metadata. HEX is the SHA-256 of the file with 64 zeros in the place of HEX. A
file without these words is not checked: another program or an earlier version wrote it.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

NAME = "codistill sha256"
"""The name that a seal has in a file."""
OPEN = "0" * 64
"""What stands in a file for HEX until `seal` has run."""
_SEAL = re.compile(rf"{NAME}\W{{1,8}}([0-9a-f]{{64}})".encode())
_HEAD = 4096  # bytes in which a seal begins
_CHUNK = 1 << 20


def seal(path: Path) -> None:
    """Puts the SHA-256 into a file that has an open seal; changes no other file."""
    found, digest = _digest(_chunks(path))
    if found and found[1] == OPEN.encode():
        with open(path, "rb+") as file:
            file.seek(found.start(1))
            file.write(digest.encode())


def unbroken(path: Path) -> bool:
    """Whether a file is as it was sealed, or has no seal. It is read piece by piece."""
    return _unbroken(_chunks(path))


def text_unbroken(content: bytes) -> bool:
    """As `unbroken`, for a text of which Git may have changed the ends of the lines."""
    return _unbroken([content.replace(b"\r\n", b"\n")])


def _unbroken(chunks: Iterable[bytes]) -> bool:
    found, digest = _digest(chunks)
    return not found or found[1] == digest.encode()


def _digest(chunks: Iterable[bytes]) -> tuple[re.Match[bytes] | None, str]:
    """The seal, and what it should hold."""
    chunks = iter(chunks)
    head = next(chunks, b"")
    found = _SEAL.search(head[:_HEAD])
    if not found:
        return None, ""
    digest = hashlib.sha256(head[: found.start(1)] + OPEN.encode() + head[found.end(1) :])
    for chunk in chunks:
        digest.update(chunk)
    return found, digest.hexdigest()


def _chunks(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        yield from iter(lambda: file.read(_CHUNK), b"")
