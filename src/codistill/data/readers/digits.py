"""scikit-learn's handwritten digits, which need no download."""

import numpy as np
import torch

from codistill.data.dataset import Split
from codistill.importing import optional

# The halves are those of scikit-learn's own example, not shuffled.
TRAIN_IMAGES = 898


def read_digits() -> tuple[Split, Split, tuple[str, ...]]:
    """Train, test and class names. The grey images are repeated in three channels."""
    digits = optional("sklearn.datasets", "the data set 'digits'").load_digits()
    grey = np.rint(digits.images * 255 / 16).astype(np.uint8)  # its values are 0 to 16
    images = torch.from_numpy(np.repeat(grey[..., None], 3, axis=3))
    labels = torch.from_numpy(digits.target.astype(np.int64))
    return (
        Split(images[:TRAIN_IMAGES], labels[:TRAIN_IMAGES]),
        Split(images[TRAIN_IMAGES:], labels[TRAIN_IMAGES:]),
        tuple(str(digit) for digit in range(10)),
    )
