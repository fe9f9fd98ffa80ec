"""Less memory for more time: a stage keeps its input and is computed again in the backward pass.

Chen, Xu, Zhang, Guestrin: Training Deep Nets with Sublinear Memory Cost. arXiv:1604.06174. PyTorch
calls it activation checkpointing.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def run_and_forget(stage: nn.Module, x: Any) -> Any:
    """`stage(x)`, of which only x and the result are kept for the backward pass.

    The second computation draws the same random numbers, and batch normalisation does not count
    the batch again. Other modules that change themselves in `forward`, such as spectral
    normalisation, do so twice, and gradients are then wrong. A stage must not change its input in
    place.
    """

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _StatisticsHeld(stage)

    return checkpoint(stage, x, use_reentrant=False, context_fn=contexts)


class _StatisticsHeld(AbstractContextManager[None]):
    """Within it, batch normalisation in train mode computes the same but keeps its statistics."""

    def __init__(self, stage: nn.Module):
        self._stage = stage

    def __enter__(self) -> None:
        norms = [m for m in self._stage.modules() if isinstance(m, _BatchNorm) and m.training]
        self._before = [(m, m.momentum, m.num_batches_tracked) for m in norms]
        for m in norms:
            m.momentum = 0.0
            if m.num_batches_tracked is not None:
                m.num_batches_tracked = m.num_batches_tracked.clone()

    def __exit__(self, *error: Any) -> None:
        for m, momentum, count in self._before:
            m.momentum, m.num_batches_tracked = momentum, count
