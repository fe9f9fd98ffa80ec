"""How much of their 16 bits images use: those that use little come out nearly black."""

import functools
from collections.abc import Callable, Sequence

import torch

from codistill.data.batches.photograph import BrokenImageError, has_16_bits, load_whole, opened
from codistill.data.encoded import EncodedDataset
from codistill.errors import InputError
from codistill.messages import counted

_LOOKED_AT = 32  # images of a data set


def notes_on_depth(dataset: EncodedDataset) -> tuple[str, ...]:
    """A remark on 16-bit images that come out nearly black, of some that are looked at.

    Raises:
        InputError: all that were looked at do.
    """
    part = next(iter(dataset.splits.values()))
    places = torch.linspace(0, len(part) - 1, min(_LOOKED_AT, len(part))).long().tolist()
    depths = [_deepest(functools.partial(part.read, i)) for i in places]
    deep = [depth for depth in depths if depth is not None]
    dark = [depth for depth in deep if nearly_black(depth, 16)]
    if not dark:
        return ()
    message = f"of {counted(len(places), 'image')} looked at, {dark_message(dark, 16)}"
    if len(dark) == len(deep):
        raise InputError(message)
    return (message,)


def nearly_black(deep: int | None, bits: int) -> bool:
    """Whether a 16-bit image uses less than a sixteenth of its range, and so comes out black."""
    return deep is not None and deep < 2 ** (bits - 4)


def dark_message(found: Sequence[int], bits: int) -> str:
    """What to say of 16-bit images that come out nearly black.

    Args:
        found: largest value of each such image.
        bits: bits that they are taken to use.
    """
    most = max(found)
    used = next((b for b in (8, 10, 12, 14) if most < 2**b), 16)
    return (
        f"{counted(len(found), '16-bit image')} with values up to {most:,} of {2**bits - 1:,} come "
        f"out nearly black: give --data.bits {used} if their grey levels use so many bits (convert "
        "colour to 8 bits), or --data.bits 16 if they are that dark"
    )


def _deepest(read: Callable[[], bytes]) -> int | None:
    """The largest value of a 16-bit image; None for others, and for broken ones."""
    try:
        with opened(read) as image:
            return load_whole(read).deep if has_16_bits(image) else None
    except BrokenImageError:
        return None
