"""What the images of a run are: every setting with its type, default and meaning."""

import math
from dataclasses import dataclass
from typing import Literal

from codistill.errors import InputError, require_not_negative, require_one_of


@dataclass
class DataConfig:
    """The images.

    Args:
        name: the data set; `codistill list data` shows all
        root: where the images are: an archive, a folder of class folders, parquet shards.
            Default: embedded or downloaded
        val_fraction: share of the training images held out to choose by; 0 trains on all.
            Default: the data set's own validation images, else 0.1
        test_fraction: share of a folder that is not divided that is only tested on. Default: 0.2
        split_seed: draws which images are held out, the same for all seeds of a comparison
        images_per_class: images of every class to train on, drawn by split_seed once the others are
            held out. Default: all
        label_column: of tables, which column has the labels. Default: found by name and type
        image_size: side of the crops that networks see, in pixels, where images are cut from
            larger ones. Default: 224
        min_scale: the smallest crop in training, as a share of the image's area. Default: 0.08
        rand_augment: strength of RandAugment's two operations per image, 1 to 30, such as 9; 0: off
        workers: processes that read and decode images. Default: one for each core
        pad: pixels added on each side before the random crop. Default: the data set's
        pad_mode: what the padding is: the mirrored image, or black
        flip: whether to mirror half of the images left and right. Default: the data set's
        normalisation: by the mean and standard deviation of the training images (data), or
            ImageNet's; auto: of images held in memory their own, of others ImageNet's
        mean: per channel, 0 to 255. Default: as data.normalisation says
        std: per channel, 0 to 255. Default: as data.normalisation says
    """

    name: str = "digits"
    root: str | None = None
    val_fraction: float | None = None
    test_fraction: float | None = None
    split_seed: int = 0
    images_per_class: int | None = None
    label_column: str | None = None
    image_size: int | None = None
    min_scale: float | None = None
    rand_augment: int = 0
    workers: int | None = None
    pad: int | None = None
    pad_mode: Literal["reflect", "zeros"] = "reflect"
    flip: bool | None = None
    normalisation: Literal["auto", "data", "imagenet"] = "auto"
    mean: list[float] | None = None
    std: list[float] | None = None

    def check(self) -> None:
        """Raises InputError where a setting makes no sense."""
        require_not_negative(
            **{
                "data.pad": self.pad or 0,
                "data.rand_augment": self.rand_augment,
                "data.workers": self.workers or 0,
            }
        )
        for name, value in (
            ("val_fraction", self.val_fraction),
            ("test_fraction", self.test_fraction),
        ):
            if value is not None and not 0 <= value < 1:
                raise InputError(f"data.{name} is {value}: give a number from 0 to below 1")
        if self.test_fraction == 0:
            raise InputError("data.test_fraction is 0: every run reports on images it did not see")
        if self.min_scale is not None and not 0 < self.min_scale <= 1:
            raise InputError(f"data.min_scale is {self.min_scale}: give a number above 0, up to 1")
        if self.image_size is not None and not 8 <= self.image_size <= 4096:
            raise InputError(f"data.image_size is {self.image_size}: give 8 to 4096 pixels")
        if self.images_per_class is not None and self.images_per_class < 1:
            raise InputError(f"data.images_per_class is {self.images_per_class}: give 1 or more")
        if self.rand_augment > 30:
            raise InputError(f"data.rand_augment is {self.rand_augment}: give 1 to 30, or 0")
        require_one_of("data.pad_mode", self.pad_mode, ("reflect", "zeros"))
        require_one_of("data.normalisation", self.normalisation, ("auto", "data", "imagenet"))
        if not all(map(math.isfinite, [*(self.mean or []), *(self.std or [])])):
            raise InputError("data.mean and data.std have to be finite")
        for name in ("mean", "std"):
            value = getattr(self, name)
            if value is not None and len(value) != 3:
                raise InputError(f"data.{name} is {value}: give three numbers, red, green, blue")
        if self.std is not None and min(self.std) <= 0:
            raise InputError(f"data.std is {self.std}: it has to be above 0")
        if self.root is not None and not self.root.strip():
            raise InputError("data.root is empty: give a place, or leave it out")
        if abs(self.split_seed) >= 2**63:
            raise InputError(f"data.split_seed is {self.split_seed}: it has to be below {2**63}")
