"""The settings of a run, each with its type, default, limits and meaning. Needs no PyTorch."""

import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from codistill import files, seals
from codistill.checks import check, setting
from codistill.errors import InputError, reason
from codistill.settings.data_config import DataConfig
from codistill.settings.yaml_files import read_yaml, to_yaml

_RETIRED = {"kernels"}  # settings of earlier versions: runs that have them still open


@dataclass
class Config:
    """The training.

    Args:
        method: {"name": ...} and the method's own options
        network: the network's name, timm/NAME, torchvision/NAME or package.module:callable; one for
            all peers, or one per peer, separated by commas; with student, the networks beside it
        student: name of the network that ships, the first peer (the last where a method keeps its
            last). Without network, the peers beside it are networks like it
        keep: peer that ships: best, smallest, student, peer0, peer1, ... Default: the student where
            one is named, else the best by the held-out images; a method with a leader keeps that
        pretrained: start from the weights that timm or torchvision publish
        weights: initial weights: one file for all peers, or one per peer, separated by commas (-
            for random); FILE#NAME chooses those under a name. A finished run's folder gives each
            peer its own. The last layer is drawn anew if the number of classes differs, or if two
            peers would start out identical; never larger than PyTorch draws one
        peers: number of networks that learn together. Default: as many as are named, or 2
        shared: number of first stages that all peers share; 0 for independent networks
        data: The images
        epochs: passes over the training images; 0: as many as suit their number
        limit_steps: steps per epoch at most, to try settings out. Default: all
        patience: evaluations without a better one on the held-out images after which training
            ends. Default: it goes on to the last epoch
        batch_size: images per step, 2 or more; 0: as many as suit the number of images
        accumulate: number of parts that each batch is computed in, one after another, to save
            memory. Batch normalisation sees the parts
        optimizer: optimizer: sgd, adamw or another of torch.optim; timm/NAME for those of timm
        optimizer_options: further options of the optimizer, such as {"betas":[0.9,0.95]}
        lr: learning rate at the start. Usual are 0.1 for sgd and 0.001 for adamw, a tenth of that
            for pretrained networks
        momentum: momentum of sgd
        nesterov: use Nesterov momentum in sgd
        weight_decay: weight decay of all weights, unless a method sets its own
        decay_norms: whether biases and the weights of normalisation layers decay as well
        layer_decay: factor of the learning rate from each stage to the one before it; 0.75 is usual
            for pretrained networks
        clip_norm: largest norm of the gradient of all weights together; a longer one is shortened.
            Default: none is
        ema: decay of a moving average of all weights, such as 0.999, which is then evaluated and
            kept; 0 is off
        freeze: number of first stages of each network that do not learn
        freeze_epochs: epochs after which they learn too. Default: never
        sync_bn: whether batch normalisation uses the whole batch where several processes train, and
            not the images of its process alone
        schedule: schedule of the learning rate: step lowers it at the milestones, cosine lowers it
            to 0 along half a cosine wave
        schedule_unit: whether the learning rate changes with every epoch or with every step
        milestones: epochs at which the learning rate is lowered, such as [150,225]; numbers below 1
            are shares of all epochs
        lr_decay: factor of the learning rate at each milestone
        warmup_epochs: epochs in which the learning rate rises linearly to its start, such as 0.5
        label_smoothing: share of each label that is spread over all classes
        mixup: alpha of Mixup, which blends pairs of images and labels; 0 is off, 0.2 is usual
        cutmix: alpha of CutMix, which pastes a box from another image; 0 is off, 1 is usual. With
            mixup as well, each batch uses one of the two
        class_weights: balanced gives every class the same weight, however many images it has
        seed: seed of the weights, the order of the images and their augmentation
        precision: precision of the forward pass in training. fp16 scales the losses
        eval_precision: precision of the forward pass in evaluation; bf16 shifts accuracies a little
        evaluate_every: epochs from one evaluation to the next; the last five epochs are always
            evaluated
        recompute: keep only the outputs of the stages and compute the rest again in the backward
            pass: the same numbers with less memory and more time. Not for spectral normalisation.
            inspect estimates memory without it
        compile: compile the stages by torch.compile. Results may differ in the last bits
        cuda_graphs: on CUDA, record a step once per epoch and replay it, which saves time on the
            host. Not with recompute
        device: auto, cpu, cuda, cuda:1 or mps
        threads: CPU threads. Results may differ in the last bits between thread counts. Default:
            PyTorch's
        out: folder of the run. Default: runs/METHOD_NETWORKxPEERS_DATA_seedN_DIGEST, where
            the digest is of all settings of the recipe
        checkpoint_seconds: seconds between checkpoints within an epoch; each epoch ends with one
        keep_checkpoints: number of checkpoints to keep
        loggers: loggers that get each epoch: tensorboard, wandb, mlflow, trackio, another of
            accelerate's or package.module:callable, separated by commas; none turns logging off;
            auto is TensorBoard if it is installed
        project: project of the run in the loggers
    """

    method: dict[str, Any] = field(default_factory=lambda: {"name": "ffl"})
    network: str = "resnet32"
    student: str | None = setting(None)
    keep: str = "auto"
    pretrained: bool = False
    weights: str | None = None
    peers: int = setting(2, above=0)
    shared: int = setting(0, at_least=0)
    data: DataConfig = field(default_factory=DataConfig)
    epochs: int = setting(300, at_least=0)
    limit_steps: int | None = setting(None, above=0)
    patience: int | None = setting(None, above=0)
    batch_size: int = setting(128, at_least=0)
    accumulate: int = setting(1, above=0)
    optimizer: str = setting("sgd")
    optimizer_options: dict[str, Any] = field(default_factory=dict)
    lr: float = setting(0.1, above=0, below=1e6)
    momentum: float = setting(0.9, at_least=0, below=1)
    nesterov: bool = True
    weight_decay: float = setting(1e-4, at_least=0)
    decay_norms: bool = True
    layer_decay: float = setting(1.0, above=0, at_most=1)
    clip_norm: float | None = setting(None, above=0)
    ema: float = setting(0.0, at_least=0, below=1)
    freeze: int = setting(0, at_least=0)
    freeze_epochs: int | None = setting(None, above=0)
    sync_bn: bool = False
    schedule: Literal["step", "cosine"] = "step"
    schedule_unit: Literal["epoch", "step"] = "epoch"
    milestones: list[float] = setting([0.5, 0.75], above=0)
    lr_decay: float = setting(0.1, above=0)
    warmup_epochs: int | float = setting(0, at_least=0)
    label_smoothing: float = setting(0.0, at_least=0, at_most=1)
    mixup: float = setting(0.0, at_least=0)
    cutmix: float = setting(0.0, at_least=0)
    class_weights: Literal["none", "balanced"] = "none"
    seed: int = setting(0, at_least=0, below=2**63, recipe=False)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
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
        if self.batch_size == 1:
            raise InputError("batch_size is 1: give 2 or more, or 0 for what suits the images")
        if self.nesterov and not self.momentum and self.optimizer == "sgd":
            raise InputError("nesterov needs a momentum above 0: give --nesterov false")
        if self.cuda_graphs and self.recompute:
            raise InputError(
                "cuda_graphs cannot record steps that compute stages again: leave out cuda_graphs "
                "or recompute"
            )
        if self.cuda_graphs and (self.precision == "fp16" or self.schedule_unit == "step"):
            raise InputError(
                "cuda_graphs record a whole step with its learning rate: give --precision bf16 or "
                "fp32, and --schedule_unit epoch"
            )
        whole = self.accumulate * max(1, self.data.class_group)
        if (
            self.batch_size
            and self.data.class_group
            and self.accumulate > 1
            and self.batch_size % whole
        ):
            raise InputError(
                f"batch_size is {self.batch_size}: with accumulate {self.accumulate} and "
                f"data.class_group {self.data.class_group} give a multiple of {whole}"
            )
        if self.batch_size and 2 * self.accumulate > self.batch_size:
            raise InputError(
                f"accumulate is {self.accumulate}: parts of a batch of {self.batch_size} have to "
                "hold two images at least"
            )
        if self.sync_bn and self.accumulate > 1:
            raise InputError(
                "sync_bn takes the statistics of a whole batch, and accumulate those of its parts: "
                "leave out one of them"
            )
        if not all(name.strip() for name in self.loggers.split(",")):
            raise InputError(f"loggers is {self.loggers!r}: an entry of it is empty")
        if not isinstance(self.method.get("name"), str):
            raise InputError(f"method is {self.method!r}: it lacks a name")
        if not re.fullmatch(r"auto|best|smallest|student|peer\d{1,4}", self.keep):
            raise InputError(
                f"keep is {self.keep!r}: give best, smallest, student, or peer0 and so on"
            )
        if self.keep == "student" and self.student is None:
            raise InputError("keep is 'student', and no student is named: give --student NAME")
        self.networks()
        self.start_weights()

    def networks(self) -> list[str]:
        """The name of each peer's network, K of them, the student's among them."""
        if self.student is None:
            return self._for_each_peer("network", self.network)
        company = names_in("network", self.network)
        if len(company) == self.peers and self.student in company:
            return company
        if len(company) == 1:
            company *= self.peers - 1
        if len(company) != self.peers - 1:
            raise InputError(
                f"network has {len(company)} entries beside the student, but peers is {self.peers}:"
                f" give --peers {len(company) + 1}"
            )
        return [self.student, *company]

    def names(self) -> list[str]:
        """The names of the method, the networks and the loggers, which may be those of code."""
        return [self.method["name"], *self.networks(), *self.loggers.split(",")]

    def start_weights(self) -> list[Path | None]:
        """The file that each peer starts from, K of them."""
        if self.weights is None:
            return [None] * self.peers
        names = self._for_each_peer("weights", self.weights)
        return [None if name == "-" else files.place_of(name) for name in names]

    def _for_each_peer(self, option: str, value: str) -> list[str]:
        names = names_in(option, value)
        if len(names) == 1:
            return names * self.peers
        if len(names) != self.peers:
            raise InputError(
                f"{option} has {len(names)} entries, but peers is {self.peers}: "
                f"give --peers {len(names)}, or one for all"
            )
        return names

    def run_folder(self) -> Path:
        """The folder of the run.

        The default names method, network, data and seed, and ends with a digest of all settings
        of the recipe: runs of other settings have another folder, and the same run the same.
        """
        if self.out is not None:
            return files.place_of(self.out)
        method = self.method["name"].rpartition(":")[2].lower()
        names = self.networks()
        names = names if len({*names}) > 1 else names[:1]
        network = "+".join(name.rpartition(":")[2].replace("/", "-") for name in names)
        name = f"{method}_{network}x{self.peers}_{self.data.name}_seed{self.seed}"
        settings = json.dumps(self.recipe(), sort_keys=True, default=str)
        return Path("runs", f"{name}_{hashlib.sha256(settings.encode()).hexdigest()[:6]}")

    def recipe(self) -> dict[str, Any]:
        """The settings that runs of one recipe have in common, by names such as data.pad."""
        left_out = {f.name for f in fields(self) if not f.metadata.get("recipe", True)}
        of_data = (f for f in fields(self.data) if not f.metadata.get("recipe", True))
        left_out |= {f"data.{f.name}" for f in of_data}
        return {key: value for key, value in flatten(asdict(self)) if key not in left_out}

    def lr_at(self, epoch: int | float, unit: int | float = 1.0) -> float:
        """The factor of the learning rate in an epoch, counted from 0, or in a step of it.

        Args:
            epoch: the epoch, with the share of it that is done where steps count.
            unit: share of an epoch from one change to the next.
        """
        if epoch < self.warmup_epochs:
            return (epoch + unit) / (self.warmup_epochs + unit)
        if self.schedule == "cosine":
            done = (epoch - self.warmup_epochs) / max(1, self.epochs - self.warmup_epochs)
            return 0.5 * (1 + math.cos(math.pi * done))
        milestones = [m if m >= 1 else m * self.epochs for m in self.milestones]
        return self.lr_decay ** sum(epoch >= m for m in milestones)

    def to_yaml(self) -> str:
        """All settings, resolved, as a recipe that gives the same run."""
        try:
            return to_yaml(asdict(self))
        except yaml.YAMLError as error:
            raise InputError(
                f"a setting cannot be written as YAML: give numbers, strings, lists ({error})"
            ) from error

    @classmethod
    def from_dict(cls, tree: dict[str, Any]) -> "Config":
        """The configuration with these settings; "data" is a dict of the data's settings."""
        return cls(**tree | {"data": DataConfig(**tree.get("data", {}))})

    def write(self, path: Path) -> None:
        """Writes `to_yaml` with a seal, as `files.write_bytes` does."""
        files.write_text(path, f"# {seals.NAME}: {seals.OPEN}\n{self.to_yaml()}")

    @classmethod
    def read(cls, path: Path) -> "Config":
        """The configuration that `write` wrote, in this or an earlier version.

        Raises:
            InputError: the file is absent, damaged or edited, or holds no configuration.
        """
        tree = read_yaml(path)
        try:
            if not isinstance(tree, dict) or not isinstance(tree.get("data", {}), dict):
                raise InputError("give names and values")
            return cls.from_dict(without_retired(tree))
        except (InputError, TypeError) as error:
            why = f"it holds no configuration ({reason(error)})"
            raise InputError(f"{path} is damaged: {why}") from error


def names_in(option: str, value: str) -> list[str]:
    """The names in a list with commas.

    Raises:
        InputError: one of them is empty; names the option.
    """
    names = [name.strip() for name in value.split(",")]
    if not all(names):
        raise InputError(f"{option} is {value!r}: an entry of it is empty")
    return names


def without_retired(tree: dict[Any, Any]) -> dict[Any, Any]:
    """The settings of a run without those that no longer exist."""
    return {key: value for key, value in tree.items() if key not in _RETIRED}


def flatten(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings in nested groups, as `("data.pad", 4)` and so on."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
