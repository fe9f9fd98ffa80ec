"""A data set for loops of one's own: `data = load_data("digits")`."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from codistill.errors import InputError, did_you_mean
from codistill.settings.build_data import Data, build_data
from codistill.settings.config import Config
from codistill.settings.data_config import DataConfig


def load_data(
    name: str,
    root: str | Path | None = None,
    *,
    batch_size: int = 128,
    views: int = 1,
    seed: int = 0,
    device: torch.device | str = "cpu",
    **settings: Any,
) -> Data:
    """Loads a data set as a run uses it: divided, normalised, augmented, in batches.

    `data = load_data("digits")` gives `data.train`, `data.val`, `data.test`, `data.classes`. The
    classes of `codistill.data` build the same parts one by one.

    Args:
        name: any data set of the command; `codistill list data` lists them.
        root: the place of the images. Default: built in, or downloaded.
        batch_size: images per batch in training.
        views: augmented views of each image; a method says how many it needs: `method.views`.
        seed: seed of the order of the images and of their augmentation.
        device: device of the batches; it has to be the method's.
        settings: further settings of the images under the names that the command gives them after
            `--data.`, such as `val_fraction=0.0` or `image_size=160`; see `DataConfig`.

    Raises:
        InputError: a name or a setting is unknown, or the images cannot be read.
    """
    known = [field.name for field in dataclasses.fields(DataConfig)]
    for setting in settings:
        if setting not in known:
            raise InputError(
                f"load_data has no setting {setting!r}: {did_you_mean(setting, known)}"
            )
    images = DataConfig(name, None if root is None else str(root), **settings)
    if batch_size < 2:
        raise InputError(f"batch_size is {batch_size}: give 2 or more")
    config = Config(data=images, batch_size=batch_size, seed=seed)
    data = build_data(config, torch.device(device))
    data.train.views = views
    return data
