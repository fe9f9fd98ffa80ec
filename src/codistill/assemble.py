"""From a configuration to the things that it names."""

import dataclasses
import functools
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from codistill.config import Config
from codistill.data import load_dataset
from codistill.data.dataset import hold_out
from codistill.data.in_memory import Augmentation, EvalBatches, Normalisation, TrainBatches
from codistill.data.mixing import MixedBatches, Mixing, balanced_weights
from codistill.errors import InputError
from codistill.method import Method
from codistill.methods import method_class
from codistill.networks import build_network, renew_equal_classifiers, start_from
from codistill.peers import Peers
from codistill.train import MakeOptimizer

_AUGMENTATION = {"digits": (1, False)}  # pad, flip: a mirrored 2 is no 2, and 8 pixels are few
_DEFAULT_AUGMENTATION = (4, True)
_EVAL_BATCH = 500


@dataclass(frozen=True)
class Data:
    """The batches of a run, on its device.

    Attributes:
        train: augmented.
        evaluate_on: "val", where images are held out, and "test".
        classes: C names.
        normalisation: of all batches.
        image_size: height and width.
        fingerprint: of the whole data set.
    """

    train: TrainBatches
    evaluate_on: dict[str, EvalBatches]
    classes: tuple[str, ...]
    normalisation: Normalisation
    image_size: tuple[int, int]
    fingerprint: str


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is CUDA where there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {name!r} cannot be used here ({reason}): try cpu") from error
    return device


def build_method(config: Config, num_classes: int, image_size: tuple[int, int]) -> Method:
    """The method of a configuration with its peers, on the CPU.

    Weights are drawn from the seed, or are those that the configuration starts from.
    """
    torch.manual_seed(config.seed)
    networks = []
    for name, weights in zip(config.networks(), config.start_weights(), strict=True):
        networks.append(build_network(name, num_classes, image_size, config.pretrained))
        if weights is not None:
            start_from(networks[-1], weights)
    renew_equal_classifiers(networks)
    peers = Peers(networks, config.shared)
    options = {key: value for key, value in config.method.items() if key != "name"}
    build = method_class(config.method["name"])
    try:
        inspect.signature(build).bind(peers, **options)
    except TypeError as error:
        raise InputError(f"method {config.method['name']!r}: {error}") from error
    method = build(peers, **options)
    return method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def require_held_out(method: Method, name: str, data: Data) -> None:
    """Raises InputError where a method measures its peers on held-out images and none are."""
    if method.needs_held_out and "val" not in data.evaluate_on:
        raise InputError(
            f"method {name!r}, as it is set, measures its peers on held-out images: "
            "give --data.val_fraction 0.1, or another number above 0"
        )


def build_data(config: Config, device: torch.device) -> Data:
    """The batches of a configuration, of one view."""
    c = config.data
    dataset = load_dataset(c.name, c.root)
    train, val = hold_out(dataset.train, c.val_fraction, c.split_seed)
    if c.val_fraction and not len(val):
        raise InputError(
            f"data.val_fraction {c.val_fraction} of {len(train)} images is not one per class: "
            "give more, or 0"
        )
    normalisation = Normalisation.of(train)
    if c.mean:
        normalisation = dataclasses.replace(normalisation, mean=(c.mean[0], c.mean[1], c.mean[2]))
    if c.std:
        normalisation = dataclasses.replace(normalisation, std=(c.std[0], c.std[1], c.std[2]))
    train, val, test = train.to(device), val.to(device), dataset.test.to(device)
    pad, flip = _AUGMENTATION.get(c.name, _DEFAULT_AUGMENTATION)
    augmentation = Augmentation(
        pad if c.pad is None else c.pad, c.pad_mode, flip if c.flip is None else c.flip
    )
    evaluate_on = {"val": val} if len(val) else {}
    evaluate_on["test"] = test
    return Data(
        train=TrainBatches(train, config.batch_size, normalisation, augmentation, seed=config.seed),
        evaluate_on={
            name: EvalBatches(split, _EVAL_BATCH, normalisation)
            for name, split in evaluate_on.items()
        },
        classes=dataset.classes,
        normalisation=normalisation,
        image_size=(test.images.shape[1], test.images.shape[2]),
        fingerprint=dataset.fingerprint,
    )


def resolve(config: Config, data: Data) -> Config:
    """The configuration with every default written out, whatever it depends on."""
    a, root = data.train.augmentation, config.data.root
    assert a is not None
    return dataclasses.replace(
        config,
        method=_method_defaults(config.method["name"])
        | config.method
        | {name: str(path) for name, path in network_files(config.method).items()},
        weights=",".join(str(path.absolute()) for path in config.start_weights() if path) or None,
        data=dataclasses.replace(
            config.data,
            root=root if root is None else str(Path(root).expanduser().absolute()),
            pad=a.pad,
            flip=a.flip,
            mean=list(data.normalisation.mean),
            std=list(data.normalisation.std),
        ),
        threads=torch.get_num_threads(),
    )


def network_files(method: dict[str, Any]) -> dict[str, Path]:
    """Those options of a method that are files of networks, such as KD's teacher: *.safetensors."""
    options = {n: Path(o).expanduser() for n, o in method.items() if isinstance(o, str | Path)}
    return {
        n: path.absolute()
        for n, path in options.items()
        if path.suffix == ".safetensors" and path.is_file()
    }


def _method_defaults(name: str) -> dict[str, Any]:
    parameters = inspect.signature(method_class(name)).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return {"name": name} | defaults


def mix(config: Config, train: TrainBatches, num_classes: int) -> TrainBatches | MixedBatches:
    """The batches to train on, with the labels that a configuration wants."""
    labels = train.split.labels.cpu()
    balanced = config.class_weights == "balanced"
    mixing = Mixing(
        label_smoothing=config.label_smoothing,
        mixup=config.mixup,
        cutmix=config.cutmix,
        class_weights=balanced_weights(labels, num_classes) if balanced else None,
    )
    return MixedBatches(train, num_classes, mixing, config.seed) if mixing else train


def make_optimizer(config: Config) -> MakeOptimizer:
    """What builds the optimizer of a configuration, of given parameters."""
    return functools.partial(
        torch.optim.SGD,
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
    )
