"""The training loop, the same for every method."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from codistill.cuda_graph import CudaGraph, RecordedStep
from codistill.data.batch import Batch, Batches, as_batch
from codistill.errors import InputError
from codistill.evaluation import evaluate
from codistill.kernels import using_kernels
from codistill.methods.method import Method
from codistill.methods.optimizers import load_state, sgd
from codistill.precision import Precision, autocast, check_precision
from codistill.probing import device_of

MakeOptimizer = Callable[..., Optimizer]
Record = dict[str, int | float]
"""What is known of an epoch when it is over, by name; see `fit`."""

_STEPS_BETWEEN_CHECKS = 50  # a check waits for the device, which must not happen in every step


class NonFiniteError(FloatingPointError):
    """A loss term or a weight became infinite or not a number. The message names it."""


class Training:
    """A method, its optimizers, and how far they have come: all that is needed to go on exactly.

    Args:
        method: what is trained.
        make_optimizer: builds an optimizer of parameters or parameter groups, as
            `functools.partial(torch.optim.SGD, lr=0.1)` does.

    Attributes:
        epoch: epochs that are complete.
        step: steps of the present epoch that are complete.
        terms: the value of every loss term in every step of the present epoch, on the device.
        history: one record per complete epoch, as `fit` yields them.
        seconds: spent training in the present epoch, by earlier processes too.
    """

    def __init__(self, method: Method, make_optimizer: MakeOptimizer | None = None):
        self.method = method
        self.optimizers = method.optimizers(make_optimizer or _paper_sgd)
        for group in self._groups():
            group.setdefault("initial_lr", group["lr"])
        self.epoch = 0
        self.step = 0
        self.terms: dict[str, list[Tensor]] = {}
        self.history: list[Record] = []
        self.seconds = 0.0
        self._checked = 0

    def set_lr(self, factor: float) -> float:
        """Sets every learning rate for the present epoch; returns that of the first group.

        `factor` is the recipe's, which multiplies the learning rate that an optimizer began with,
        unless the method has a schedule of its own for it.
        """
        for name, optimizer in self.optimizers.items():
            own = self.method.lr_factor(name, self.epoch, factor)
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * own
        return next(self._groups())["lr"]

    def record(self, losses: Mapping[str, Tensor]) -> None:
        """Counts a step and keeps its losses; now and then checks that they are finite."""
        if self.step and losses.keys() != self.terms.keys():
            raise InputError(
                f"the method returned the loss terms {sorted(losses)} in step {self.step + 1}, but "
                f"{sorted(self.terms)} before: return the same in every step of an epoch, zero "
                "where one is off"
            )
        for name, value in losses.items():
            self.terms.setdefault(name, []).append(value.detach())
        self.step += 1
        if self.step % _STEPS_BETWEEN_CHECKS == 0:
            self.check_losses()

    def end_epoch(self, record: Record) -> None:
        """Closes the present epoch with its record."""
        self.history.append(record)
        self.epoch += 1
        self.step, self.terms, self.seconds, self._checked = 0, {}, 0.0, 0

    def check_losses(self) -> None:
        """Raises NonFiniteError where a loss term has not been finite since the last check."""
        if self._checked == self.step:
            return
        values = torch.stack([torch.stack(v[self._checked :]) for v in self.terms.values()])
        bad = (~values.isfinite()).cpu()  # (terms, steps)
        if bad.any():
            step = int(bad.any(dim=0).int().argmax())
            names = [n for n, b in zip(self.terms, bad[:, step], strict=True) if b]
            raise NonFiniteError(
                f"loss term {' and '.join(map(repr, names))} is not finite "
                f"({values[bad[:, step], step].tolist()[0]}) in epoch {self.epoch + 1}, step "
                f"{self._checked + step + 1}: lower the learning rate, or look at the data"
            )
        self._checked = self.step

    def check_weights(self) -> None:
        """Raises NonFiniteError where a weight or a buffer of the method is not finite."""
        for name, value in self.method.state_dict().items():
            if value.is_floating_point() and not value.isfinite().all():
                raise NonFiniteError(
                    f"weight {name!r} is not finite after {self.epoch} epochs and {self.step} "
                    "steps: lower the learning rate, or look at the data"
                )

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and strings in dicts and lists: what `torch.load` calls weights only."""
        return {
            "method": self.method.state_dict(),
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
            "epoch": self.epoch,
            "step": self.step,
            "terms": {name: torch.stack(values) for name, values in self.terms.items()},
            "history": self.history,
            "seconds": self.seconds,
            "rng": torch.get_rng_state(),
            "rng_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up a training where `state_dict` left it."""
        self.method.load_state_dict(state["method"])
        for name, optimizer in self.optimizers.items():
            load_state(optimizer, state["optimizers"][name])
        self.epoch, self.step = state["epoch"], state["step"]
        device = device_of(self.method)  # checkpoints are read on the CPU
        self.terms = {name: list(values.to(device)) for name, values in state["terms"].items()}
        self.history = list(state["history"])
        self.seconds = state["seconds"]
        self._checked = self.step
        torch.set_rng_state(state["rng"])
        if state["rng_cuda"]:
            torch.cuda.set_rng_state_all(state["rng_cuda"])

    def _groups(self) -> Iterator[dict[str, Any]]:
        return (group for o in self.optimizers.values() for group in o.param_groups)


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
    kernels: bool | None = None,
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
        kernels: whether to train on a CPU with what `codistill kernels` has built, if it has.
            Default: as the caller does, by `codistill.kernels.using_kernels`.
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
        with nullcontext() if kernels is None else using_kernels(kernels):
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


def _paper_sgd(params: Any) -> Optimizer:
    return sgd(params, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
