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

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from codistill.analysis.cost.probing import random_views, some_labels
from codistill.methods.method import Method
from codistill.training.device import Precision, autocast

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
    method: Method, image_size: tuple[int, int], batch_size: int, precision: Precision
) -> MemoryEstimate:
    """What a step of `method` needs, which is in train mode and may be run freely."""
    few, more = _PROBES
    low, high = (_saved_bytes(method, image_size, b, precision) for b in _PROBES)
    per_image = (high - low) / (more - few)
    trained = _bytes(p for p in method.parameters() if p.requires_grad)
    return MemoryEstimate(
        weights=_bytes(method.parameters()),
        gradients=trained,
        optimizers=_optimizer_bytes(method),
        buffers=_bytes(method.buffers()),
        activations=max(0, round(low + per_image * (batch_size - few))),
    )


def _optimizer_bytes(method: Method) -> int:
    """What the method's optimizers keep, where the recipe chose SGD with momentum."""
    optimizers = method.optimizers(functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9))
    return sum(
        (2 if "betas" in group else 1) * _bytes(p for p in group["params"] if p.requires_grad)
        for optimizer in optimizers.values()
        for group in optimizer.param_groups
    )


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
