"""What PyTorch is asked to do while a block runs: operations, and waits for the device.

On the CPU nothing waits visibly, so the calls are counted that would wait on a GPU.
"""

from collections import Counter

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten

# Of a value, or of a size that depends on values, wherever they hide in other operations.
_WAITING = {
    aten._local_scalar_dense,
    aten.is_nonzero,
    aten.item,
    aten.equal,
    aten.allclose,
    aten.nonzero,
    aten.nonzero_numpy,
    aten.masked_select,
    aten.argwhere,
    aten.bincount,
    aten.unique_dim,
    aten._unique2,
    aten.unique_consecutive,
}
# Copies between host and device, which are nothing on the CPU: seen where they are called.
_COPYING = {
    torch.Tensor.cpu,
    torch.Tensor.tolist,
    torch.Tensor.numpy,
    torch.Tensor.__array__,
    torch.Tensor.cuda,
    torch.tensor,
    torch.as_tensor,
    torch.from_numpy,
}
_VIEWS = {
    aten.alias,
    aten.as_strided,
    aten.as_strided_,
    aten.detach,
    aten.empty,
    aten.expand,
    aten.permute,
    aten.select,
    aten.slice,
    aten.split,
    aten.squeeze,
    aten.t,
    aten.transpose,
    aten.unbind,
    aten.unsqueeze,
    aten.view,
    aten._unsafe_view,
    aten._reshape_alias,
}


class Dispatched(TorchDispatchMode):
    """Counts operations by name while it is entered, backward passes among them.

    Args:
        host: tensors that are not on the device, wherever the rest is.

    Attributes:
        counts: of all operations.
        waits: names of those after which the host has to wait for the device.
    """

    def __init__(self, host=()):
        super().__init__()
        self.host = {tensor.data_ptr() for tensor in host}
        self.counts = Counter()
        self.waits = []
        self._calls = _Calls(self.waits)

    def __enter__(self):
        self._calls.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._calls.__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        packet = func.overloadpacket
        self.counts[packet] += 1
        if packet in _WAITING and args[0].data_ptr() in self.host:
            pass
        elif packet in _WAITING or _is_masked(packet, args):
            self.waits.append(str(func))
        return func(*args, **kwargs or {})

    @property
    def kernels(self):
        """How many operations compute something: views and empty memory left out."""
        return sum(
            n
            for packet, n in self.counts.items()
            if packet not in _VIEWS and not str(packet).startswith("profiler")
        )


class _Calls(TorchFunctionMode):
    def __init__(self, waits):
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _COPYING or func is torch.Tensor.to and _moves(args, kwargs):
            self.waits.append(func.__name__)
        return func(*args, **kwargs)


def _is_masked(packet, args):
    """Whether it reads or writes where a mask is true: how much that is, is a value."""
    if packet not in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_):
        return False
    return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])


def _moves(args, kwargs):
    """Whether `tensor.to(...)` names a device, or a tensor on one, and has the host wait."""
    names = any(isinstance(a, str | torch.device | torch.Tensor) for a in args[1:])
    return (names or kwargs.get("device") is not None) and not kwargs.get("non_blocking")
