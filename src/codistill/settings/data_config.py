"""What the images of a run are: every setting with its type, default and meaning."""

from dataclasses import dataclass
from typing import Literal

from codistill.errors import InputError
from codistill.settings.checks import check, setting


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
    root: str | None = setting(None)
    val_fraction: float | None = setting(None, at_least=0, below=1)
    test_fraction: float | None = setting(None, at_least=0, below=1)
    split_seed: int = setting(0, above=-(2**63), below=2**63)
    images_per_class: int | None = setting(None, above=0)
    label_column: str | None = None
    image_size: int | None = setting(None, at_least=8, at_most=4096)
    min_scale: float | None = setting(None, above=0, at_most=1)
    rand_augment: int = setting(0, at_least=0, at_most=30)
    workers: int | None = setting(None, at_least=0, recipe=False)
    pad: int | None = setting(None, at_least=0)
    pad_mode: Literal["reflect", "zeros"] = "reflect"
    flip: bool | None = None
    normalisation: Literal["auto", "data", "imagenet"] = "auto"
    mean: list[float] | None = setting(None, numbers=3)
    std: list[float] | None = setting(None, numbers=3, above=0)

    def __post_init__(self) -> None:
        check(self, "data.")
        if self.test_fraction == 0:
            raise InputError("data.test_fraction is 0: every run reports on images it did not see")
