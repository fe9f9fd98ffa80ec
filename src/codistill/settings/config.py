"""What a run is: every setting with its type, default and meaning. Needs no PyTorch."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from codistill.errors import InputError
from codistill.settings.checks import check, setting
from codistill.settings.data_config import DataConfig

_RETIRED = {"kernels"}  # settings of earlier versions: runs that have them still open


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
        evaluate_every: epochs from one evaluation to the next; the last five are always evaluated
        recompute: keep only what the stages return and compute the rest again in the backward pass:
            the same numbers, less memory, more time; not for spectral normalisation. What inspect
            estimates is without it
        compile: the stages of the networks by torch.compile; other last bits
        cuda_graphs: on CUDA, record a step once an epoch and replay it, which spares the host; not
            with recompute
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
    peers: int = setting(2, above=0)
    shared: int = setting(0, at_least=0)
    data: DataConfig = field(default_factory=DataConfig)
    epochs: int = setting(300, above=0)
    batch_size: int = setting(128, at_least=2)
    lr: float = setting(0.1, above=0, below=1e6)
    momentum: float = setting(0.9, at_least=0, below=1)
    nesterov: bool = True
    weight_decay: float = setting(1e-4, at_least=0)
    schedule: Literal["step", "cosine"] = "step"
    milestones: list[float] = setting([0.5, 0.75], above=0)
    lr_decay: float = setting(0.1, above=0)
    warmup_epochs: int = setting(0, at_least=0)
    label_smoothing: float = setting(0.0, at_least=0, at_most=1)
    mixup: float = setting(0.0, at_least=0)
    cutmix: float = setting(0.0, at_least=0)
    class_weights: Literal["none", "balanced"] = "none"
    seed: int = setting(0, at_least=0, below=2**63, recipe=False)
    precision: Literal["fp32", "bf16"] = "fp32"
    eval_precision: Literal["fp32", "bf16"] = "fp32"
    evaluate_every: int = setting(1, above=0)
    recompute: bool = setting(False, recipe=False)
    compile: bool = setting(False, recipe=False)
    cuda_graphs: bool = setting(False, recipe=False)
    device: str = setting("auto", recipe=False)
    threads: int | None = setting(None, above=0, at_most=1024, recipe=False)
    out: str | None = setting(None, recipe=False)
    checkpoint_seconds: float = setting(300.0, at_least=0, recipe=False)
    keep_checkpoints: int = setting(2, above=0, recipe=False)
    loggers: str = setting("auto", recipe=False)
    project: str = setting("codistill", recipe=False)

    def __post_init__(self) -> None:
        check(self)
        if self.nesterov and not self.momentum:
            raise InputError("nesterov needs a momentum above 0: give --nesterov false")
        if not all(name.strip() for name in self.loggers.split(",")):
            raise InputError(f"loggers is {self.loggers!r}: an entry of it is empty")
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
        return cls(**tree | {"data": DataConfig(**tree.get("data", {}))})

    @classmethod
    def from_yaml(cls, text: str) -> "Config":
        """What `to_yaml` wrote, now or when there were more settings."""
        try:
            return cls.from_dict(without_retired(yaml.safe_load(text)))
        except (yaml.YAMLError, TypeError, AttributeError) as error:
            raise InputError(f"this is no configuration of a run: {error}") from error


def without_retired(tree: dict[Any, Any]) -> dict[Any, Any]:
    """Settings of a run without those that no longer exist."""
    return {key: value for key, value in tree.items() if key not in _RETIRED}


def flatten(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings in nested groups, as `("data.pad", 4)` and so on."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
