"""Batch normalisation by the statistics of the whole batch, where processes have pieces of it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from codistill import distributed
from codistill.errors import InputError
from codistill.methods.method import Method
from codistill.training.device import device_of

_repeated = False  # every process has the whole batch, and so its statistics


def batch_is_repeated(repeated: bool) -> None:
    """Says of the next step whether every process has the whole batch."""
    global _repeated
    _repeated = repeated


def synchronise(method: Method) -> None:
    """Lets all batch normalisation of a method use the images of all processes.

    One process leaves everything as it is. Modules, weights and their names stay. On GPUs it is
    PyTorch's SyncBatchNorm.

    Raises:
        InputError: a network has another kind of batch normalisation than PyTorch's.
    """
    if distributed.team().size == 1:
        return
    kind = _OnCpu if device_of(method).type == "cpu" else _OnGpu
    for name, module in method.named_modules():
        if type(module) in _PLAIN:
            module.__class__ = kind
        elif isinstance(module, _BatchNorm) and type(module) is not kind:
            raise InputError(
                f"sync_bn knows no {type(module).__name__}, which {name} is: leave it out, or give "
                "another network"
            )


class _OnGpu(nn.SyncBatchNorm):
    @property
    def process_group(self) -> Any:  # type: ignore[override]
        return distributed.team().handle  # no attribute, which copies of a module would copy

    def forward(self, x: Tensor) -> Tensor:
        return _BatchNorm.forward(self, x) if _repeated else super().forward(x)


class _Sum(torch.autograd.Function):
    """The sum over all processes, through which gradients flow: each gets those of all."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        distributed.add_up([x])
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        gradient = gradient.clone()
        distributed.add_up([gradient])
        return gradient


class _OnCpu(_BatchNorm):
    """PyTorch's is for GPUs alone."""

    def _check_input_dim(self, x: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or _repeated:
            return super().forward(x)
        dims = [0, *range(2, x.ndim)]
        shape = [1, -1] + [1] * (x.ndim - 2)
        count = x.new_full((), x.numel() / x.shape[1])
        distributed.add_up([count])
        mean = _sum(x.sum(dims)) / count
        centred = x - mean.view(shape)
        variance = _sum(centred.square().sum(dims)) / count
        self._move([mean.detach(), variance.detach() * (count / (count - 1))])
        x = centred * (variance + self.eps).rsqrt().view(shape)
        return x if self.weight is None else x * self.weight.view(shape) + self.bias.view(shape)

    def _move(self, now: Sequence[Tensor]) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        by = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        torch._foreach_lerp_([self.running_mean, self.running_var], list(now), by)


def _sum(x: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(x)
    return total


_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
SYNCHRONISED = (_OnGpu, _OnCpu)
"""The kinds of batch normalisation that a method then has."""
