"""The memory of a training step, before anything is trained: what its tensors hold at the peak.

It is measured on a few images and extrapolated to a batch. A process takes more: PyTorch's kernels,
and memory that the allocator holds but cannot use; on a CPU we saw 1.4 to 2.3 times the tensors.
Left out are the data set, evaluation, what `Peers.recompute` saves, terms that a method
only adds at a later epoch, losses that compare all images of a batch, whose memory grows with its
square, and what `training_step` does beside one forward pass and its losses, such as AFD's
discriminators.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from codistill.analysis.cost.probing import random_views, some_labels
from codistill.methods.method import Method
from codistill.methods.optimizers import MakeOptimizer
from codistill.training.device import Precision, autocast
from codistill.training.updates import UpdateOptions

_PROBES = 2, 4  # images; batch normalisation cannot train on one


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that one training step needs.

    Attributes:
        weights: all parameters, those that are not trained too.
        gradients: one per trained weight.
        optimizers: their state: one number per weight that SGD moves, with momentum, two for Adam.
        buffers: such as the statistics of batch normalisation.
        activations: what the forward pass saves for the backward pass, the images among it;
            measured on 2 and 4 images and extrapolated to the batch.
    """

    weights: int
    gradients: int
    optimizers: int
    buffers: int
    activations: int

    @property
    def tensors(self) -> int:
        """The sum: what all tensors hold at the peak."""
        return self.weights + self.gradients + self.optimizers + self.buffers + self.activations


def estimate_memory(
    method: Method,
    image_size: tuple[int, int],
    batch_size: int,
    precision: Precision,
    make_optimizer: MakeOptimizer | None = None,
    options: UpdateOptions | None = None,
) -> MemoryEstimate:
    """What a step of `method` needs, which is in train mode and may be run freely.

    Args:
        method: the peers and how they learn.
        image_size: height and width, in pixels.
        batch_size: images per step.
        precision: precision of the forward pass.
        make_optimizer: a function that makes the recipe's optimizers. Default: SGD with momentum.
        options: how steps update the weights.
    """
    options = options or UpdateOptions()
    part = -(-batch_size // options.accumulate)
    few, more = _PROBES
    low, high = (_saved_bytes(method, image_size, b, precision) for b in _PROBES)
    per_image = (high - low) / (more - few)
    trained = _bytes(p for p in method.parameters() if p.requires_grad)
    copies = 2 if options.ema else 1
    return MemoryEstimate(
        weights=copies * _bytes(method.parameters()),
        gradients=trained,
        optimizers=_optimizer_bytes(method, make_optimizer or _WITH_MOMENTUM),
        buffers=copies * _bytes(method.buffers()),
        activations=max(0, round(low + per_image * (part - few))),
    )


_WITH_MOMENTUM = functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9)


def _optimizer_bytes(method: Method, make_optimizer: MakeOptimizer) -> int:
    """What the method's optimizers keep."""
    optimizers = method.optimizers(make_optimizer)
    return sum(
        _kept(group) * _bytes(p for p in group["params"] if p.requires_grad)
        for optimizer in optimizers.values()
        for group in optimizer.param_groups
    )


def _kept(group: dict[str, Any]) -> int:
    """The number of tensors per weight that an optimizer keeps: Adam two, SGD one or none."""
    if "betas" in group:
        return len(group["betas"])
    return int(group.get("momentum", 1) > 0)


def _saved_bytes(
    method: Method, image_size: tuple[int, int], images: int, precision: Precision
) -> int:
    """What a forward pass keeps for the backward pass: every storage once, weights not at all."""
    views = random_views(method, image_size, images)
    labels = some_labels(method, images)
    saved: dict[int, int] = {}

    def save(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor  # which keeps it alive: its address will not be given to another

    def load(tensor: Tensor) -> Tensor:
        return tensor

    with (
        autocast(labels.device, precision),
        saved_tensors_hooks(save, load),
    ):
        losses = method.losses(method(views), labels, 0)
    for tensor in (*method.parameters(), *method.buffers()):
        saved.pop(tensor.untyped_storage().data_ptr(), None)
    del losses  # and with it the graph, which had to live until here
    return sum(saved.values())


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
