"""Batch normalisation, the addition of a residual, and ReLU, as one operation where one is built.

For training on a CPU PyTorch has them only one by one, and each goes through the whole map, which
takes as long as memory does. `batch_norm_relu.cpp` reads a map twice and writes it once.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
import torch._C._functorch as functorch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable
from torch.nn.modules import module as torch_module

_used = False


@contextmanager
def using_kernels(wanted: bool = True) -> Iterator[str | None]:
    """Inside, networks in train mode use the kernels, if they are built; yields their name or None.

    Args:
        wanted: False uses none inside.
    """
    from codistill.kernels.build import built  # networks need no cache

    name = built() if wanted else None
    with _using(name is not None):
        yield name


def as_now() -> Callable[[], AbstractContextManager[None]]:
    """Makes contexts, for later, inside which the kernels are used if they are used now."""
    return partial(_using, _used)


@contextmanager
def _using(used: bool) -> Iterator[None]:
    global _used
    before, _used = _used, used
    try:
        yield
    finally:
        _used = before


def batch_norm_relu(
    bn: nn.Module, relu: nn.Module, x: Tensor, residual: Tensor | None = None
) -> Tensor:
    """`relu(bn(x) + residual)`, (B, C, H, W) as `x`: as one operation where that can be.

    It can be within `using_kernels`, for a `BatchNorm2d` in train mode with weights and running
    statistics, and maps on the CPU in channels_last layout, in float32 or bfloat16. Else the
    modules are called, also where somebody looks on: hooks, compilers, dispatch modes, transforms.
    """
    if _used and _fits(bn, relu, x, residual):
        return _fused(bn, x, residual)
    y = bn(x)
    if residual is not None:
        y += residual
    return relu(y)


def _fused(bn: Any, x: Tensor, residual: Tensor | None) -> Tensor:
    momentum = 0.0 if bn.momentum is None else bn.momentum  # all as in BatchNorm2d's forward
    if bn.num_batches_tracked is not None:
        bn.num_batches_tracked.add_(1)
        if bn.momentum is None:
            momentum = 1.0 / float(bn.num_batches_tracked)
    statistics = bn.running_mean, bn.running_var
    return _BatchNormReLU.apply(x, residual, bn.weight, bn.bias, *statistics, momentum, bn.eps)


class _BatchNormReLU(torch.autograd.Function):
    """Keeps the input, four numbers per channel and, where a residual was added, the output."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, residual: Tensor | None, *others: Any) -> Tensor:
        y, known = torch.ops.codistill.batch_norm_relu(x, residual, *others)
        ctx.save_for_backward(x, known, *([] if residual is None else [y]))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, known, *y = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        gradients = torch.ops.codistill.batch_norm_relu_backward(
            gradient, x, y[0] if y else None, known
        )
        return *gradients, None, None, None, None


def _fits(bn: nn.Module, relu: nn.Module, x: Tensor, residual: Tensor | None) -> bool:
    if torch.compiler.is_compiling() or torch._C._is_tracing() or _somebody_looks_on():
        return False
    return (
        type(bn) is nn.BatchNorm2d
        and type(relu) is nn.ReLU
        and bn.training
        and bn.track_running_stats
        and _is_only_called(bn)
        and _is_only_called(relu)
        and all(map(_is_of_channels, (bn.weight, bn.bias, bn.running_mean, bn.running_var)))
        and _is_map(x)
        and bn.num_features == x.shape[1] < x.numel()  # more than one number per channel
        and (
            residual is None
            or (_is_map(residual) and residual.dtype == x.dtype and residual.shape == x.shape)
        )
    )


def _is_of_channels(x: Any) -> bool:
    return (
        type(x) in (Tensor, nn.Parameter)
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.is_contiguous()
    )


def _is_map(x: Tensor) -> bool:
    return (
        type(x) in (Tensor, nn.Parameter)
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and x.ndim == 4
        and x.is_contiguous(memory_format=torch.channels_last)
    )


def _is_only_called(module: nn.Module) -> bool:
    """Whether a call of it is its `forward` and nothing else."""
    return not (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or module._compiled_call_impl
        or "forward" in module.__dict__
    )


def _somebody_looks_on() -> bool:
    """Whether a mode, a transform or a hook of all modules wants to see every operation."""
    return bool(
        torch._C._len_torch_dispatch_stack()
        or torch._C._len_torch_function_stack()
        or functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
        or torch_module._global_forward_hooks
        or torch_module._global_forward_pre_hooks
        or torch_module._global_backward_hooks
        or torch_module._global_backward_pre_hooks
    )
