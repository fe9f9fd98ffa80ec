"""What the benchmarks build from codistill: made-up images, methods, loops."""

import functools
from collections.abc import Iterator, Mapping

import torch

import codistill
from codistill import Method, Peers, build_network
from codistill.data import Augmentation, Normalisation, TrainBatches
from codistill.data.batch import Batches
from codistill.data.batches.in_memory import PadMode
from codistill.data.dataset import Split
from codistill.methods import method_class
from codistill.methods.optimizers import sgd
from codistill.training.device import Precision
from codistill.training.record import Record

CLASSES = 100
# FFL's recipe with a smaller learning rate: labels are random, and the loss must stay finite.
RECIPE = {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}
SGD = functools.partial(sgd, **RECIPE)
PLAIN_SGD = functools.partial(torch.optim.SGD, **RECIPE)
FULL_WEIGHT = 10_000  # an epoch in which every ramp is over


def random_split(images: int, side: int = 32) -> Split:
    """Random images (N, side, side, 3) and labels."""
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (images, side, side, 3), dtype=torch.uint8, generator=rng)
    return Split(pixels, torch.randint(CLASSES, (images,), generator=rng))


def batches(
    split: Split, batch_size: int, views: int = 1, pad_mode: PadMode = "reflect"
) -> TrainBatches:
    """Batches of the images in random order, augmented as CIFAR is."""
    augmentation = Augmentation(pad_mode=pad_mode)
    return TrainBatches(split, batch_size, Normalisation.of(split), augmentation, views)


def build_method(name: str, network: str, peers: int, shared: int, **options: object) -> Method:
    """Builds a method as `codistill train` does."""
    torch.manual_seed(0)
    networks = [build_network(network, CLASSES) for _ in range(peers)]
    method = method_class(name)(Peers(networks, shared), **options)
    return method.to(memory_format=torch.channels_last)


def epochs(
    method: Method,
    train: Batches,
    precision: Precision,
    cuda_graphs: bool = False,
    evaluate_on: Mapping[str, Batches] | None = None,
) -> Iterator[Record]:
    """Trains for ever; yields a record at the end of every epoch."""
    return codistill.epochs(
        method,
        train,
        evaluate_on,
        epochs=10**9,
        make_optimizer=SGD,
        precision=precision,
        cuda_graphs=cuda_graphs,
    )
