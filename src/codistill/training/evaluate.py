"""The evaluation, the same for every method."""

from collections.abc import Iterator, Sequence, Sized
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from codistill import distributed
from codistill.data.batch import Batch, Batches, as_batch
from codistill.errors import InputError
from codistill.methods.method import Method
from codistill.methods.modes import eval_mode
from codistill.networks.apart import recorded, replayed
from codistill.training.device import (
    Precision,
    autocast,
    check_precision,
    device_of,
    random_numbers_kept,
)
from codistill.training.folding import TRIED, WORTH, folded
from codistill.training.metrics import (
    batch_differences,
    batch_metrics,
    mean_differences,
    mean_metrics,
)
from codistill.training.stopping import Stop, ask, never


def evaluate(
    method: Method, batches: Batches, precision: Precision = "fp32", stop: Stop = never
) -> dict[str, float]:
    """Evaluates every classifier of `method` in eval mode.

    Batch normalisation is folded into convolutions if that changes no more than the last bits of
    the logits. Modes and random numbers stay as they were. Several processes take turns with whole
    batches, and all return what one process would, to the bit. Batches that are not codistill's
    go through every process.

    Args:
        method: the peers and how they learn.
        batches: `Batch`es, or pairs of images and labels.
        precision: "bf16" runs the forward pass under autocast.
        stop: asked before each batch; see `fit`.

    Returns:
        For each classifier "top1/NAME" and "top5/NAME" in %, "nll/NAME" in nats; for peers i and j
        "kl/peerI/peerJ" in nats and "disagreement/peerI/peerJ" in %, as in `fit`.

    Raises:
        InputError: there is no image, or labels are no classes (B,).
        Stopped: `stop` returned True.
    """
    check_precision(precision)
    stop = distributed.agreed(stop) if stop is not never else never
    found: list[_Sums] = []
    fast: Method | None = None
    with eval_mode(method), torch.inference_mode(), random_numbers_kept(device_of(method)):
        for batch in _turns(batches):
            ask(stop)
            if fast is None:
                fast = _fast(method, batch, batches)
            if batch is None:
                continue
            if batch.labels.ndim != 1:
                raise InputError(
                    f"labels to evaluate on are {tuple(batch.labels.shape)}: give classes (B,); "
                    "distributions are for training"
                )
            with autocast(batch.labels.device, precision):
                out = fast(batch.views)
            of_each = {n: batch_metrics(z, batch.labels) for n, z in out.classifiers.items()}
            apart = batch_differences(out.logits) if len(out.logits) > 1 else None
            found.append(_Sums(len(batch.labels), of_each, apart))
    if _dealt(batches):
        found = distributed.dealt_out([sums.on_cpu() for sums in found])
    n = sum(sums.images for sums in found)
    if not n:
        raise InputError("there is not one image to evaluate on")
    metrics = {
        f"{metric}/{name}": value
        for name in found[0].of_each
        for metric, value in mean_metrics([sums.of_each[name] for sums in found], n).items()
    }
    differences = [sums.apart for sums in found if sums.apart is not None]
    differing = mean_differences(differences, n) if differences else {}
    return distributed.of_first(metrics | differing)


class _Sums(NamedTuple):
    """Sums over a batch: its images, the metrics of each classifier, and how far peers differ."""

    images: int
    of_each: dict[str, Float[Tensor, "3"]]
    apart: Float[Tensor, "2 K K"] | None

    def on_cpu(self) -> "_Sums":
        of_each = {name: sums.cpu() for name, sums in self.of_each.items()}
        return _Sums(self.images, of_each, None if self.apart is None else self.apart.cpu())


def _dealt(batches: Batches) -> bool:
    """Whether processes take turns with the batches."""
    return distributed.team().size > 1 and hasattr(batches, "dealt")


def _turns(batches: Any) -> Iterator[Batch | None]:
    """The batches of this process; None in a round in which only others have one."""
    if not _dealt(batches):
        yield from map(as_batch, batches)
        return
    rank, size, _ = distributed.team()
    mine = batches.dealt(rank, size)
    for _ in range(0, len(batches), size):
        yield next(mine, None)


def _fast(method: Method, batch: Batch | None, batches: Batches) -> Method:
    """The method with batch normalisation folded, where that is worth it; see `folded`."""
    views: Sequence[Tensor] = ()
    images = 0
    if batch is not None:
        views = batch.views
        images = len(batch.labels) * (len(batches) if isinstance(batches, Sized) else 1)
    device = device_of(method)
    if _dealt(batches):  # all try the same images, so that all decide alike
        few = [view[:TRIED].cpu() for view in views]
        few, images = distributed.of_first((few, images))
        views = [view.to(device) for view in few]
    with autocast(device, "fp32"):  # off, whatever the caller has on
        if method.peers.own is None or images < WORTH:
            return folded(method, views, images)
        with recorded() as received:  # all peers take part; then each process tries on its own
            method([view[:TRIED] for view in views])
        with replayed(received):
            return folded(method, views, images)
