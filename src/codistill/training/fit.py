"""The training loop, the same for every method."""

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice

import torch
from torch import Tensor

from codistill.data.batch import Batch, Batches, as_batch
from codistill.errors import InputError
from codistill.methods.method import Method
from codistill.training.cuda_graph import CudaGraph, RecordedStep
from codistill.training.device import Precision, autocast, check_precision, device_of
from codistill.training.evaluate import evaluate
from codistill.training.record import Record
from codistill.training.state import MakeOptimizer, Training


def fit(
    method: Method,
    train: Batches,
    evaluate_on: Mapping[str, Batches] | None = None,
    *,
    epochs: int,
    held_out: Batches | None = None,
    make_optimizer: MakeOptimizer | None = None,
    lr_at: Callable[[int], float] | None = None,
    precision: Precision = "fp32",
    eval_precision: Precision = "fp32",
    cuda_graphs: bool = False,
    training: Training | None = None,
) -> Iterator[Record]:
    """Trains `method` and yields a record after each epoch. The caller's loop is the callback.

    A batch is asked for only when the step before it is complete and counted in `training`. Who
    wants to act between two steps wraps `train` in a generator: a progress bar, a checkpoint.

    Args:
        method: the peers and how they learn.
        train: the batches of one epoch: `Batch`es, or pairs of images and labels as a
            `DataLoader` gives them. Where it has a method `start_at(epoch, step)`, as
            `TrainBatches` has, that is called before every epoch.
        evaluate_on: batches to evaluate on after every epoch, by name, such as "val" or "test".
        epochs: when to end, those of an earlier process counted in.
        held_out: batches that no peer trains on, for methods that measure their peers before an
            epoch. Never the test set.
        make_optimizer: default: SGD as in FFL's recipe, with a learning rate of 0.1.
        lr_at: multiplies the learning rate in an epoch, of every optimizer that the method gives
            no schedule of its own. Default: always 1.
        precision: "bf16" runs the forward pass under autocast; weights and losses stay float32.
        eval_precision: the same for the evaluation.
        cuda_graphs: on CUDA, record a step once an epoch and replay it, which spares the host. The
            step must not depend on numbers in Python that change within an epoch, which stay as
            they were recorded, nor wait for the device. Elsewhere this does nothing.
        training: to go on with; it then holds the optimizers.

    Yields:
        "epoch", "lr", "images_per_second", "seconds", the mean of every loss term as
        "loss/NAME", and for each set S and classifier N "S/top1/N" and "S/top5/N" in %, and
        "S/nll/N" in nats; with two peers or more, for peers i and j, "S/kl/peerI/peerJ", the mean
        KL(p_i || p_j) in nats, and for i below j "S/disagreement/peerI/peerJ", the share of images
        in % that they call by different names.
    """
    if training is None:
        training = Training(method, make_optimizer)
    elif training.method is not method or make_optimizer is not None:
        raise InputError("`training` holds a method and its optimizers: give that method, no other")
    if method.needs_held_out and held_out is None:
        raise InputError(
            f"{type(method).__name__}, as it is set, measures its peers on images that none of "
            "them trains on: give fit(..., held_out=batches), or a run data.val_fraction above 0"
        )
    for epoch in range(training.epoch, epochs):
        if training.step == 0:
            method.begin_epoch(epoch, None if held_out is None else map(as_batch, held_out))
        lr = training.set_lr(lr_at(epoch) if lr_at else 1.0)
        if hasattr(train, "start_at"):
            train.start_at(epoch, training.step)
            batches = train
        else:
            batches = islice(train, training.step, None)
        images, seconds = train_epoch(training, batches, precision, cuda_graphs)

        record: Record = {"epoch": epoch + 1, "lr": lr}
        record |= {f"loss/{n}": torch.stack(v).mean().item() for n, v in training.terms.items()}
        for name, evaluation_batches in (evaluate_on or {}).items():
            metrics = evaluate(method, evaluation_batches, eval_precision)
            record |= {f"{name}/{key}": value for key, value in metrics.items()}
        record |= {"images_per_second": images / seconds, "seconds": training.seconds}
        training.end_epoch(record)
        yield record


def train_epoch(
    training: Training,
    batches: Batches,
    precision: Precision = "fp32",
    cuda_graphs: bool = False,
) -> tuple[int, float]:
    """Trains on all batches; returns how many images there were, and the seconds it took."""
    check_precision(precision)
    method = training.method.train()

    def step(batch: Batch) -> dict[str, Tensor]:
        with autocast(batch.labels.device, precision):
            return method.training_step(batch, training.optimizers, training.epoch)

    if cuda_graphs and (device := device_of(method)).type == "cuda":
        step = RecordedStep(step, training.optimizers.values(), CudaGraph(device))
    images, begin = 0, time.perf_counter()
    before = training.seconds
    for batch in map(as_batch, batches):
        if len(batch.views) != method.views:
            raise InputError(
                f"a batch has {len(batch.views)} views, but {type(method).__name__} needs "
                f"{method.views}: give TrainBatches(..., views={method.views})"
            )
        training.record(step(batch))
        training.seconds = before + time.perf_counter() - begin
        images += len(batch.labels)
    if not training.step:
        raise InputError(
            f"there is not one batch to train on in epoch {training.epoch + 1}: a generator can be "
            "gone through only once, so give a list, a DataLoader or TrainBatches"
        )
    training.check_losses()  # waits for the device
    seconds = time.perf_counter() - begin
    training.seconds = before + seconds
    return images, seconds
