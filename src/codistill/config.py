"""What a run is: every setting with its type, default and meaning. Needs no PyTorch."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from codistill.errors import (
    InputError,
    require_fraction,
    require_not_negative,
    require_one_of,
    require_positive,
)


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


@dataclass
class Config:
    """A training.

    Args:
        method: {"name": ..., and the method's own options}
        network: a network by name, timm/NAME, torchvision/NAME or package.module:callable;
            several, joined by commas, for peers that differ
        pretrained: start from the weights that timm or torchvision publish
        weights: start from these: files of the networks' weights, joined by commas, - for none, or
            one for all; a classifier of other classes is begun anew, and so are those of peers that
            would begin equal
        peers: K, how many networks learn together
        shared: how many of the first stages are common to all peers; 0: independent networks
        data: the images
        epochs: passes over the training images
        batch_size: images per step
        lr: learning rate at the start
        momentum: of SGD
        nesterov: Nesterov's form of it
        weight_decay: on all weights, but where a method has its own
        schedule: of the learning rate: steps at the milestones, or one cosine down to 0
        milestones: where the learning rate steps down, such as [150,225]: epochs, or parts of all
            epochs if below 1
        lr_decay: what each step multiplies it by
        warmup_epochs: epochs in which the learning rate rises linearly to its start
        label_smoothing: share of every label that is spread over all classes
        mixup: alpha of Mixup, which blends images and labels in pairs; 0 is off, 0.2 usual
        cutmix: alpha of CutMix, which pastes a box of another image; 0 is off, 1 usual. With mixup
            too, each batch takes one of them
        class_weights: balanced lets all classes count the same, however many images they have
        seed: of weights, order and augmentation
        precision: of the forward pass in training
        eval_precision: of the forward pass in evaluation; bf16 shifts accuracies a little
        recompute: keep only what the stages return and compute the rest again in the backward pass:
            the same numbers, less memory, more time; not for spectral normalisation. What inspect
            estimates is without it
        compile: the stages of the networks by torch.compile; other last bits
        cuda_graphs: on CUDA, record a step once an epoch and replay it, which spares the host; not
            with recompute
        kernels: train on a CPU with the kernels that `codistill kernels` has built, if it has: the
            same mathematics with other last bits
        device: auto, cpu, cuda, cuda:1, mps
        threads: of the CPU. Default: as PyTorch finds it. More or fewer give other last bits
        out: folder of the run. Default: runs/METHOD_NETWORKxPEERS_DATA_seedN
        checkpoint_seconds: a checkpoint is due after every epoch, and within one after so long
        keep_checkpoints: how many of the last ones to keep
        loggers: who is told each epoch as it ends: tensorboard, wandb, mlflow, trackio, another of
            accelerate's, package.module:callable; several joined by commas; none; auto:
            TensorBoard, if it is installed
        project: what loggers gather runs under
    """

    method: dict[str, Any] = field(default_factory=lambda: {"name": "ffl"})
    network: str = "resnet32"
    pretrained: bool = False
    weights: str | None = None
    peers: int = 2
    shared: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    epochs: int = 300
    batch_size: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    schedule: Literal["step", "cosine"] = "step"
    milestones: list[float] = field(default_factory=lambda: [0.5, 0.75])
    lr_decay: float = 0.1
    warmup_epochs: int = 0
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    seed: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    eval_precision: Literal["fp32", "bf16"] = "fp32"
    recompute: bool = False
    compile: bool = False
    cuda_graphs: bool = False
    kernels: bool = True
    device: str = "auto"
    threads: int | None = None
    out: str | None = None
    checkpoint_seconds: float = 300.0
    keep_checkpoints: int = 2
    loggers: str = "auto"
    project: str = "codistill"

    def __post_init__(self) -> None:
        require_positive(
            epochs=self.epochs,
            peers=self.peers,
            lr=self.lr,
            lr_decay=self.lr_decay,
            keep_checkpoints=self.keep_checkpoints,
            threads=1 if self.threads is None else self.threads,
        )
        require_fraction(label_smoothing=self.label_smoothing)
        require_not_negative(
            shared=self.shared,
            weight_decay=self.weight_decay,
            warmup_epochs=self.warmup_epochs,
            seed=self.seed,
            checkpoint_seconds=self.checkpoint_seconds,
            momentum=self.momentum,
            mixup=self.mixup,
            cutmix=self.cutmix,
        )
        self.data.check()
        numbers = [self.lr, self.lr_decay, self.weight_decay, self.mixup, self.cutmix]
        if not all(map(math.isfinite, [*numbers, *self.milestones])):
            raise InputError(
                "lr, lr_decay, weight_decay, mixup, cutmix, milestones have to be finite"
            )
        for name, value, choices in (
            ("schedule", self.schedule, ("step", "cosine")),
            ("precision", self.precision, ("fp32", "bf16")),
            ("eval_precision", self.eval_precision, ("fp32", "bf16")),
            ("class_weights", self.class_weights, ("none", "balanced")),
        ):
            if value not in choices:
                raise InputError(f"{name} is {value!r}: give {' or '.join(map(repr, choices))}")
        if self.batch_size < 2:
            raise InputError(f"batch_size is {self.batch_size}: give 2 or more")
        if self.momentum >= 1:
            raise InputError(f"momentum is {self.momentum}: give a number from 0 to below 1")
        if self.nesterov and not self.momentum:
            raise InputError("nesterov needs a momentum above 0: give --nesterov false")
        for name, number, limit in (
            ("seed", self.seed, 2**63),
            ("threads", self.threads or 1, 1025),
            ("lr", self.lr, 1e6),
        ):
            if number >= limit:
                raise InputError(f"{name} is {number}: it has to be below {limit}")
        if self.out is not None and not self.out.strip():
            raise InputError("out is empty: give a folder, or leave it out")
        if not all(name.strip() for name in self.loggers.split(",")) or not self.project.strip():
            raise InputError("loggers and project cannot be empty: give names, or --loggers none")
        if any(m <= 0 for m in self.milestones):
            raise InputError(f"milestones are {self.milestones}: they have to be above 0")
        self.networks()
        self.start_weights()

    def networks(self) -> list[str]:
        """The name of each peer's network, K of them."""
        return self._for_each_peer("network", self.network)

    def start_weights(self) -> list[Path | None]:
        """The file that each peer starts from, K of them."""
        if self.weights is None:
            return [None] * self.peers
        names = self._for_each_peer("weights", self.weights)
        return [None if name == "-" else Path(name).expanduser() for name in names]

    def _for_each_peer(self, option: str, value: str) -> list[str]:
        names = [name.strip() for name in value.split(",")]
        if not all(names):
            raise InputError(f"{option} is {value!r}: an entry of it is empty")
        if len(names) == 1:
            return names * self.peers
        if len(names) != self.peers:
            raise InputError(
                f"{option} has {len(names)} entries, but peers is {self.peers}: "
                f"give --peers {len(names)}, or one for all"
            )
        return names

    def run_folder(self) -> Path:
        """Where the run goes."""
        if self.out is not None:
            return Path(self.out).expanduser()
        method = self.method["name"].rpartition(":")[2].lower()
        names = self.networks() if "," in self.network else [self.network.strip()]
        network = "+".join(name.rpartition(":")[2].replace("/", "-") for name in names)
        return Path("runs", f"{method}_{network}x{self.peers}_{self.data.name}_seed{self.seed}")

    def lr_at(self, epoch: int) -> float:
        """What the learning rate at the start is multiplied by in an epoch, counted from 0."""
        if epoch < self.warmup_epochs:
            return (epoch + 1) / (self.warmup_epochs + 1)
        if self.schedule == "cosine":
            done = (epoch - self.warmup_epochs) / max(1, self.epochs - self.warmup_epochs)
            return 0.5 * (1 + math.cos(math.pi * done))
        milestones = [m if m >= 1 else m * self.epochs for m in self.milestones]
        return self.lr_decay ** sum(epoch >= m for m in milestones)

    def to_yaml(self) -> str:
        """All settings, resolved, as a recipe that gives the same run."""
        try:
            return yaml.safe_dump(asdict(self), sort_keys=False)
        except yaml.YAMLError as error:
            raise InputError(
                f"a setting cannot be written as YAML: give numbers, strings, lists ({error})"
            ) from error

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> "Config":
        """The configuration with these settings, those of the data in a dict of their own."""
        numbers = {f.name for f in fields(cls) if f.type is float}
        tree = {k: float(v) if k in numbers else v for k, v in tree.items()}  # 1 is a number too
        return cls(**tree | {"data": DataConfig(**tree.get("data", {}))})

    @classmethod
    def from_yaml(cls, text: str) -> "Config":
        """What `to_yaml` wrote."""
        try:
            return cls.from_dict(yaml.safe_load(text))
        except (yaml.YAMLError, TypeError, AttributeError) as error:
            raise InputError(f"this is no configuration of a run: {error}") from error


def flatten(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings in nested groups, as `("data.pad", 4)` and so on."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
