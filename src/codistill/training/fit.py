"""The training loop, the same for every method."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from itertools import islice

import torch
from torch import Tensor

from codistill import distributed
from codistill.data.batch import Batch, Batches, as_batch
from codistill.errors import InputError
from codistill.methods.method import Method
from codistill.methods.optimizers import MakeOptimizer
from codistill.training.cuda_graph import CudaGraph, RecordedStep
from codistill.training.device import Precision, autocast, check_precision, device_of
from codistill.training.evaluate import evaluate
from codistill.training.record import Record
from codistill.training.state import TrainingState
from codistill.training.stopping import Stop, Stopped, ask, never
from codistill.training.updates import UpdateOptions

ALWAYS_EVALUATED = 5  # epochs at the end, whose mean steadies a result


def fit(
    method: Method,
    train: Batches,
    evaluate_on: Mapping[str, Batches] | None = None,
    *,
    epochs: int,
    held_out: Batches | None = None,
    make_optimizer: MakeOptimizer | None = None,
    lr_at: Callable[[float], float] | None = None,
    lr_every_step: bool = False,
    options: UpdateOptions | None = None,
    precision: Precision = "fp32",
    eval_precision: Precision = "fp32",
    evaluate_every: int = 1,
    cuda_graphs: bool = False,
    state: TrainingState | None = None,
    stop: Stop = never,
) -> list[Record]:
    """Trains `method` and returns a record of each epoch; `epochs` is the same as a loop.

    Args:
        method: the peers and how they learn.
        train: the batches of one epoch: `Batch`es, or pairs of images and labels as a
            `DataLoader` gives them. If it has a method `start_at(epoch, step)`, as `TrainBatches`
            has, that is called before every epoch.
        evaluate_on: batches to evaluate on after every epoch, by name, such as "val" or "test".
        epochs: the number of epochs after which training ends, those of an earlier process
            included.
        held_out: batches that no peer trains on, for methods that measure their peers before an
            epoch. Never the test set.
        make_optimizer: a function that builds an optimizer of parameters or parameter groups.
            Default: SGD as in FFL's recipe, with a learning rate of 0.1.
        lr_at: the factor of the learning rate in an epoch, counted from 0, for every optimizer
            that the method gives no schedule of its own. Default: always 1.
        lr_every_step: whether it is asked before every step, for 2.25 after a quarter of the third
            epoch's steps. `train` then needs a length. Not with `cuda_graphs`, which record the
            learning rate.
        options: how steps update the weights: clipping, parts of a batch, an average, frozen
            stages. Default: as they are.
        precision: "bf16" and "fp16" run the forward pass under autocast; weights and losses stay
            float32. With "fp16" losses are scaled, and steps that overflow are left out.
        eval_precision: the same for the evaluation.
        evaluate_every: the number of epochs from one evaluation to the next; the last five epochs
            are always evaluated. The records of the others lack its metrics.
        cuda_graphs: whether to record a step once an epoch on CUDA and to replay it, which spares
            the host. The step must not wait for the device, nor depend on numbers in Python that
            change within an epoch: they stay as they were recorded. Without effect elsewhere.
        state: a training to continue; it then holds the optimizers and the options.
        stop: a function that is asked after each step, and before each batch of an evaluation. When
            it returns True, training ends there, and `state` can be continued to the same bits. An
            evaluation that is cut short is then repeated from its start.

    Returns:
        Per epoch "epoch", "lr", "images_per_second", "seconds"; the mean over its steps of every
        loss term as "loss/NAME" and of every measurement as "measure/NAME"; for each set S and
        classifier N "S/top1/N" and "S/top5/N" in %, and "S/nll/N" in nats; with two peers or more,
        for peers i and j, "S/kl/peerI/peerJ", the mean KL(p_i || p_j) in nats, and for i below j
        "S/disagreement/peerI/peerJ", the share of images in % that they call by different names.

    Raises:
        InputError: the batches do not suit the method, or `state` belongs to another method.
        NonFiniteError: a loss term became infinite or not a number.
    """
    return list(
        _loop(
            method,
            train,
            evaluate_on,
            epochs=epochs,
            held_out=held_out,
            make_optimizer=make_optimizer,
            lr_at=lr_at,
            lr_every_step=lr_every_step,
            options=options,
            precision=precision,
            eval_precision=eval_precision,
            evaluate_every=evaluate_every,
            cuda_graphs=cuda_graphs,
            state=state,
            stop=stop,
        )
    )


def epochs(
    method: Method,
    train: Batches,
    evaluate_on: Mapping[str, Batches] | None = None,
    *,
    epochs: int,
    held_out: Batches | None = None,
    make_optimizer: MakeOptimizer | None = None,
    lr_at: Callable[[float], float] | None = None,
    lr_every_step: bool = False,
    options: UpdateOptions | None = None,
    precision: Precision = "fp32",
    eval_precision: Precision = "fp32",
    evaluate_every: int = 1,
    cuda_graphs: bool = False,
    state: TrainingState | None = None,
    stop: Stop = never,
) -> Iterator[Record]:
    """Trains `method` and yields a record after each epoch: `fit` as a loop of the caller's own.

    Arguments, records and errors are those of `fit`. Nothing is trained until the loop begins.

    A batch is asked for only when the step before it is complete and counted in `state`. To act
    between two steps, wrap `train` in a generator: a progress bar, a checkpoint.
    """
    if state is None:
        state = TrainingState(method, make_optimizer, options)
    elif state.method is not method or make_optimizer is not None or options is not None:
        raise InputError(
            "`state` holds a method, its optimizers and options: give that method, no others"
        )
    if method.needs_held_out and held_out is None:
        raise InputError(
            f"{type(method).__name__}, as it is set, measures its peers on images that none of "
            "them trains on: give fit(..., held_out=batches), or a run data.val_fraction above 0"
        )
    steps = len(train) if isinstance(train, Sized) else None
    if lr_every_step and not steps:
        raise InputError("lr_every_step needs the number of steps: give batches that have a length")
    if cuda_graphs and lr_every_step:
        raise InputError(
            "cuda_graphs record the learning rate once per epoch: leave out cuda_graphs or "
            "lr_every_step"
        )
    if cuda_graphs and state.placement is not None:
        raise InputError(
            "cuda_graphs cannot record what processes with a peer each exchange: leave out "
            "cuda_graphs or --placement peers"
        )
    stop = distributed.agreed(stop) if stop is not never else never
    with contextlib.suppress(Stopped):
        for epoch in range(state.epoch, epochs):
            ask(stop)
            if state.step == 0:
                method.begin_epoch(epoch, None if held_out is None else map(as_batch, held_out))
                state.share_buffers()
            factor_at = _factors(lr_at, epoch, steps if lr_every_step else None)
            state.set_lr(factor_at(state.step))
            if hasattr(train, "start_at"):
                train.start_at(epoch, state.step)
                batches = train
            else:
                batches = islice(train, state.step, None)
            train_epoch(
                state, batches, precision, cuda_graphs, stop, factor_at if lr_every_step else None
            )

            state.require_equal(f"after epoch {epoch + 1}")
            lr = state.set_lr(factor_at(state.step - 1))
            record: Record = {"epoch": epoch + 1, "lr": lr} | state.means()
            due = (epoch + 1) % evaluate_every == 0 or epoch >= epochs - ALWAYS_EVALUATED
            for name, images in (evaluate_on or {}).items() if due else ():
                metrics = evaluate(state.result, images, eval_precision, stop)
                record |= {f"{name}/{key}": value for key, value in metrics.items()}
            speed = state.images / state.seconds
            record |= {"images_per_second": speed, "seconds": state.seconds}
            state.end_epoch(record)
            yield record


_loop = epochs  # within `fit`, the name `epochs` is a number


def _factors(
    lr_at: Callable[[float], float] | None, epoch: int, steps: int | None
) -> Callable[[int], float]:
    """The factor of the learning rate by the step of an epoch of so many; None: one for all."""

    def factor(step: int) -> float:
        return lr_at(epoch + step / steps if steps else epoch) if lr_at else 1.0

    return factor


def train_epoch(
    state: TrainingState,
    batches: Batches,
    precision: Precision = "fp32",
    cuda_graphs: bool = False,
    stop: Stop = never,
    factor_at: Callable[[int], float] | None = None,
) -> None:
    """Trains on all batches, the rest of an epoch; `state` counts steps, images and seconds.

    Args:
        state: the training.
        batches: what is left of the epoch.
        precision: see `fit`.
        cuda_graphs: see `fit`.
        stop: see `fit`.
        factor_at: the factor of the learning rate in a step of the epoch. Default: it stays.

    Raises:
        Stopped: after a step for which `stop` returned True.
    """
    check_precision(precision)
    method = state.method
    state.begin()

    def step(batch: Batch) -> dict[str, Tensor]:
        parts = batch.parts(state.options.accumulate)
        taken = []
        for i, (part, share) in enumerate(parts, 1):
            with (
                state.updates.active(precision == "fp16", share, i == len(parts), batch.share),
                autocast(batch.labels.device, precision),
            ):
                taken.append(method.training_step(part, state.optimizers, state.epoch))
        return _weighted_mean(taken, [share for _, share in parts])

    if cuda_graphs and (device := device_of(method)).type == "cuda":
        step = RecordedStep(step, state.optimizers.values(), CudaGraph(device))
    before, begin = state.seconds, time.perf_counter()
    for batch in map(as_batch, batches):
        if len(batch.views) != method.views:
            raise InputError(
                f"a batch has {len(batch.views)} views, but {type(method).__name__} needs "
                f"{method.views}: give load_data(..., views={method.views})"
            )
        if factor_at is not None:
            state.set_lr(factor_at(state.step))
        state.begin_step(batch.repeated)
        state.record(step(batch), batch.images, batch.share)
        state.seconds = before + time.perf_counter() - begin
        ask(stop)
    if not state.step:
        raise InputError(
            f"there is not one batch to train on in epoch {state.epoch + 1}: a generator can be "
            "gone through only once, so give a list, a DataLoader or TrainBatches"
        )
    state.check_losses()  # waits for the device
    state.seconds = before + time.perf_counter() - begin


def _weighted_mean(
    losses: Sequence[dict[str, Tensor]], shares: Sequence[float]
) -> dict[str, Tensor]:
    """The losses of a batch, from those of its parts."""
    if len(losses) == 1:
        return losses[0]
    return {
        name: torch.stack(
            [s * of[name].detach() for s, of in zip(shares, losses, strict=True)]
        ).sum(0)
        for name in losses[0]
    }
