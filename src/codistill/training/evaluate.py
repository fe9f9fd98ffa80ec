"""The evaluation, the same for every method."""

from collections import defaultdict
from collections.abc import Sized

import torch
from torch import Tensor

from codistill.data.batch import Batches, as_batch
from codistill.errors import InputError
from codistill.methods.method import Method
from codistill.methods.modes import eval_mode
from codistill.training.device import (
    Precision,
    autocast,
    check_precision,
    device_of,
    random_numbers_kept,
)
from codistill.training.folding import folded
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
    the logits. Modes and random numbers stay as they were.

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
    sums: dict[str, list[Tensor]] = defaultdict(list)
    differences: list[Tensor] = []
    n = 0
    fast: Method | None = None
    with eval_mode(method), torch.inference_mode(), random_numbers_kept(device_of(method)):
        for batch in map(as_batch, batches):
            ask(stop)
            if batch.labels.ndim != 1:
                raise InputError(
                    f"labels to evaluate on are {tuple(batch.labels.shape)}: give classes (B,); "
                    "distributions are for training"
                )
            device = batch.labels.device
            if fast is None:
                with autocast(device, "fp32"):  # off, whatever the caller has on
                    parts = len(batches) if isinstance(batches, Sized) else 1
                    fast = folded(method, batch.views, parts * len(batch.labels))
            with autocast(device, precision):
                out = fast(batch.views)
            for name, logits in out.classifiers.items():
                sums[name].append(batch_metrics(logits, batch.labels))
            if len(out.logits) > 1:
                differences.append(batch_differences(out.logits))
            n += len(batch.labels)
    if not n:
        raise InputError("there is not one image to evaluate on")
    return {
        f"{metric}/{name}": value
        for name, values in sums.items()
        for metric, value in mean_metrics(values, n).items()
    } | (mean_differences(differences, n) if differences else {})
