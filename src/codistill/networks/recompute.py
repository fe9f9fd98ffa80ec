"""Less memory for more time: a stage keeps its input and is computed again in the backward pass.

Chen, Xu, Zhang, Guestrin: Training Deep Nets with Sublinear Memory Cost. arXiv:1604.06174. PyTorch
calls it activation checkpointing.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from codistill.kernels import as_now


def run_and_forget(stage: nn.Module, x: Any) -> Any:
    """`stage(x)`, of which only x and the result are kept for the backward pass.

    The second time it draws the same random numbers, uses compiled kernels as the first time, and
    batch normalisation does not count the batch once more. Other modules that change themselves in
    `forward`, as spectral normalisation does, do so twice, and gradients are then wrong. A stage
    must not change its input in place.
    """

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _AsBefore(stage)

    return checkpoint(stage, x, use_reentrant=False, context_fn=contexts)


class _AsBefore(AbstractContextManager[None]):
    """As it was the first time, but for the statistics; for every time that is to come."""

    def __init__(self, stage: nn.Module):
        self._stage = stage
        self._kernels = as_now()

    def __enter__(self) -> None:
        self._inside = ExitStack()
        self._inside.enter_context(self._kernels())
        self._inside.enter_context(_statistics_held(self._stage))

    def __exit__(self, *error: Any) -> None:
        self._inside.__exit__(*error)


@contextmanager
def _statistics_held(stage: nn.Module) -> Iterator[None]:
    """Batch normalisation in train mode computes as ever but leaves its statistics."""
    norms = [m for m in stage.modules() if isinstance(m, _BatchNorm) and m.training]
    before = [(m, m.momentum, m.num_batches_tracked) for m in norms]
    for m in norms:
        m.momentum, m.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for m, momentum, count in before:
            m.momentum, m.num_batches_tracked = momentum, count
