"""The settings of the images of a run, each with its type, default, limits and meaning."""

from dataclasses import dataclass
from typing import Literal

from codistill.checks import check, setting
from codistill.errors import InputError


@dataclass
class DataConfig:
    """The images.

    Args:
        name: the data set's name; codistill list data shows all
        root: place of the images: an archive, a folder of class folders, Parquet shards. Default:
            built in, or downloaded
        val_fraction: share of the training images that is held out to choose the epoch; 0 trains on
            all. Default: the data set's own validation images, or else 0.1
        test_fraction: share of the images that is only tested on, for a folder without test images.
            Default: 0.2
        split_seed: seed of the held-out images, the same for all seeds of a comparison
        images_per_class: number of images of each class to train on; split_seed draws them after
            the held-out ones. Default: all
        fraction: share of the images of each class to train on, drawn in the same way. Default: all
        label_column: column of the labels, for tables; suffix of the files of labels, for
            webdataset. Default: found by name and type
        image_column: column of the images, or of their paths, for tables. Default: found by name
            and type
        splits: folders, files or values that are splits, such as train=a,val=b,test=c; none takes
            all for one undivided data set. Default: found by their names
        bits: bits of a pixel that 16-bit grey images use, such as 8 or 12. Default: 16
        image_size: side of the crops that networks see, in pixels, for images that are cut from
            larger ones. Default: 224
        min_scale: smallest crop in training, as a share of the image's area. Default: 0.08
        rand_augment: strength of RandAugment's two operations per image, 1 to 30, 9 is usual; 0 is
            off
        class_group: number of images of one class that follow one another in training, for methods
            that contrast classes, such as 2; batch_size has to be a multiple of it. 0 is off
        cache: short side, in pixels, of copies of larger images, which are made when an image is
            first read, kept on disk, and read faster from then on; for images that are cut to
            data.image_size, of which it is at least 8/7; 256 suits 224. 0 is off
        workers: processes that read and decode images. Default: one per core
        pad: pixels added on each side before the random crop. Default: the data set's
        pad_mode: padding: reflect mirrors the image, zeros is black
        flip: mirror half of the images left to right. Default: the data set's
        normalisation: mean and standard deviation of the training images (data) or of ImageNet;
            auto takes the former for images held in memory and the latter for others
        mean: mean per channel, 0 to 255. Default: see data.normalisation
        std: standard deviation per channel, 0 to 255. Default: see data.normalisation
    """

    name: str = "digits"
    root: str | None = setting(None)
    val_fraction: float | None = setting(None, at_least=0, below=1)
    test_fraction: float | None = setting(None, at_least=0, below=1)
    split_seed: int = setting(0, above=-(2**63), below=2**63)
    images_per_class: int | None = setting(None, above=0)
    fraction: float | None = setting(None, above=0, at_most=1)
    label_column: str | None = None
    image_column: str | None = None
    splits: str | None = setting(None)
    bits: int | None = setting(None, at_least=8, at_most=16)
    image_size: int | None = setting(None, at_least=8, at_most=4096)
    min_scale: float | None = setting(None, above=0, at_most=1)
    rand_augment: int = setting(0, at_least=0, at_most=30)
    class_group: int = setting(0, at_least=0)
    cache: int = setting(0, at_least=0, at_most=8192)
    workers: int | None = setting(None, at_least=0, recipe=False)
    pad: int | None = setting(None, at_least=0)
    pad_mode: Literal["reflect", "zeros"] = "reflect"
    flip: bool | None = None
    normalisation: Literal["auto", "data", "imagenet"] = "auto"
    mean: list[float] | None = setting(None, numbers=3)
    std: list[float] | None = setting(None, numbers=3, above=0)

    def __post_init__(self) -> None:
        check(self, "data.")
        if self.images_per_class is not None and self.fraction is not None:
            raise InputError(
                "data.images_per_class and data.fraction both say how many images to train on: "
                "give one of them"
            )
        if self.test_fraction == 0:
            raise InputError("data.test_fraction is 0: every run reports on images it did not see")
        self._refuse_fractions()

    def _refuse_fractions(self) -> None:
        """Raises InputError for a mean and deviation of channels that go from 0 to 1."""
        given = {n: v for n, v in (("mean", self.mean), ("std", self.std)) if v}
        if given and all(0.01 <= max(values) <= 1 for values in given.values()):
            name, values = next(iter(given.items()))
            times = ",".join(f"{255 * value:.1f}" for value in values)
            raise InputError(
                f"data.{name} is {values}, and channels go from 0 to 255: multiply by 255, as in "
                f"--data.{name} {times}"
            )
