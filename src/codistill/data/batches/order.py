"""How many batches an epoch has, and the seeds of what is drawn for them."""

from codistill.errors import InputError


def check_batch_size(images: int, batch_size: int) -> None:
    """Raises InputError where nothing can be learnt from batches of that size."""
    if images < 2 or batch_size < 2:
        raise InputError(
            f"training needs 2 images or more, and batches of 2 or more: there are "
            f"{images} images and batch_size is {batch_size}"
        )


def count_batches(images: int, batch_size: int) -> int:
    """Steps in an epoch: batch normalisation cannot learn from a last batch of one image."""
    full, rest = divmod(images, batch_size)
    return full + (rest > 1)


def mix(*numbers: int) -> int:
    """One seed out of several numbers, so that neighbours have nothing to do with each other."""
    state = 0
    for number in numbers:  # splitmix64
        state = (state + number + 0x9E3779B97F4A7C15) & (2**64 - 1)
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
        state ^= state >> 31
    return state >> 1  # manual_seed takes 63 bits
