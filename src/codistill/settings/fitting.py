"""Numbers of epochs and batch sizes that suit a number of images: for settings that are 0.

Few photographs want small batches, or an epoch is one or two steps, and many epochs. Of many
photographs a few epochs are enough.
"""

_STEPS = 16  # of an epoch, where the batch can be made small enough for it
_SMALLEST, _LARGEST = 16, 64  # batch normalisation is noisy below 16
_UPDATES = 3000  # of a training from published weights
_FEWEST, _MOST = 10, 50  # its epochs
_FROM_NOTHING = 3  # times as many epochs, without published weights


def fitting_batch_size(images: int) -> int:
    """The power of two, 16 to 64, that makes about 16 steps of so many training images.

    Fewer images than that are one batch.
    """
    size = _SMALLEST
    while size < _LARGEST and 2 * size * _STEPS <= images:
        size *= 2
    return max(2, min(size, images))


def fitting_epochs(steps: int, pretrained: bool) -> int:
    """The number of epochs that makes about 3,000 updates, 10 to 50 epochs.

    Args:
        steps: number of updates in an epoch.
        pretrained: whether the networks start from weights that were trained before; otherwise they
            get three times as many epochs.
    """
    epochs = min(_MOST, max(_FEWEST, round(_UPDATES / steps)))
    return epochs if pretrained else epochs * _FROM_NOTHING
