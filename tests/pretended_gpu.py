"""A GPU that is pretended on a CPU: tests find mixed devices without owning one.

A tensor "on the GPU" is an ordinary one of the CPU whose storage is noted. Its values are real, so
control flow, optimizers, checkpoints and whole runs work as ever. While the GPU is entered,

- `x.device` is cuda:0 for a noted tensor, so every branch for CUDA is taken;
- `.to`, `.cpu`, `.cuda` and `device="cuda"` move tensors, by a copy as on a GPU;
- an operation that reads both devices raises `DeviceError`, and so does `.numpy()`.

What a pretended GPU cannot show: speed, memory, streams, recorded steps, what is not deterministic,
the types that autocast chooses on CUDA, random numbers of CUDA, and a wrong one of several GPUs.
"""

import contextlib
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, TypeVar

import torch
import torch.utils.checkpoint
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
GPU = torch.device("cuda", 0)
CPU = torch.device("cpu")

# Operations that take indices of the host, as CUDA does.
_INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
# Operations that take a tensor () of the host as a number.
_NUMBERS = {
    *(aten.add, aten.add_, aten.sub, aten.sub_, aten.mul, aten.mul_, aten.div, aten.div_),
    *(aten.rsub, aten.pow, aten.where, aten.maximum, aten.minimum),
    *(aten.eq, aten.ne, aten.lt, aten.le, aten.gt, aten.ge),
}
# Getters of a property. Each look makes a new one, so they are compared by `==`.
_DEVICE, _IS_CUDA = Tensor.device.__get__, Tensor.is_cuda.__get__
_MANY = 20_000  # noted storages, after which those that are gone are dropped

Tree = TypeVar("Tree")


class DeviceError(RuntimeError):
    """A real GPU would refuse this."""


class PretendedGpu:
    """Within this block, CUDA has one device, cuda:0.

    What is noted outlives the block, as a real GPU's tensors do: caches may hold them.
    """

    _noted: dict[int, StorageWeakRef] = {}
    """Storages on the GPU by address. The reference keeps an address from being given again."""

    def __init__(self) -> None:
        self.called_on_gpu = False
        """Whether the present call from Python reads the GPU: what it makes is then there too."""
        self._operations, self._calls = _Operations(self), _Calls(self)

    def holds(self, x: object) -> bool:
        """Whether something is a tensor on the GPU."""
        return isinstance(x, Tensor) and x.untyped_storage()._cdata in self._noted

    def put(self, tree: Tree, there: bool = True) -> Tree:
        """Notes that the tensors of a tree are on the GPU, or that they are not; returns it."""
        for x in _tensors(tree):
            storage = x.untyped_storage()
            if there:
                self._noted.setdefault(storage._cdata, StorageWeakRef(storage))
            else:
                self._noted.pop(storage._cdata, None)
        if len(self._noted) > _MANY:
            for address in [a for a, reference in self._noted.items() if reference.expired()]:
                del self._noted[address]
        return tree

    def __enter__(self) -> "PretendedGpu":
        autocast, engine = torch.autocast, torch.autograd._engine_run_backward

        def autocast_on_cpu(device_type: str, *args: Any, **kwargs: Any) -> torch.autocast:
            return autocast("cpu" if device_type == "cuda" else device_type, *args, **kwargs)

        def backward(*args: Any, **kwargs: Any) -> Any:
            with self._calls:  # hooks, and what is computed again, are calls too
                return engine(*args, **kwargs)

        replaced: list[tuple[Any, str, Callable[..., Any]]] = [
            (torch, "autocast", autocast_on_cpu),
            (torch.autograd, "_engine_run_backward", backward),
            (torch.cuda, "get_device_name", lambda device=None: "pretended GPU"),
            (torch.cuda, "get_device_capability", lambda device=None: (8, 0)),
            (torch.cuda, "get_rng_state", lambda device=None: torch.get_rng_state()),
            (torch.cuda, "set_rng_state", lambda state, device=None: None),
            (torch.cuda, "synchronize", lambda device=None: None),
            (torch.cuda, "device", lambda device: contextlib.nullcontext()),
        ]
        checks = torch.utils.checkpoint._allowed_determinism_checks_to_fns
        with contextlib.ExitStack() as stack:
            for owner, name, value in replaced:
                stack.callback(setattr, owner, name, getattr(owner, name))
                setattr(owner, name, value)
            stack.callback(checks.update, dict(checks))
            checks["default"] = lambda x: (x.shape, x.dtype)  # its hook would see the CPU
            stack.enter_context(self._operations)
            stack.enter_context(self._calls)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()


def _tensors(tree: object) -> Iterator[Tensor]:
    """The tensors in tuples, lists and dicts; PyTorch's `tree_leaves` takes five times as long."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, tuple | list):
        for part in tree:
            yield from _tensors(part)
    elif isinstance(tree, dict):
        for part in tree.values():
            yield from _tensors(part)


class _Operations(TorchDispatchMode):
    """Refuses operations on both devices, and notes what comes out of those on the GPU."""

    def __init__(self, gpu: PretendedGpu):
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        gpu, packet, kwargs = self.gpu, func.overloadpacket, kwargs or {}
        if packet is aten.copy_:  # between devices, as `load_state_dict` does
            return func(*args, **kwargs)
        tensors = [*_tensors(args), *_tensors(kwargs)]
        there = [gpu.holds(x) for x in tensors]
        if any(there) and not all(there):
            for x, on_gpu in zip(tensors, there, strict=True):
                written = x is args[0] and packet.__name__.endswith("_")
                index = packet in _INDEXING and there[0] and x is not args[0]
                number = x.dim() == 0 and packet in _NUMBERS and not written
                if not (on_gpu or index or number):
                    places = ("cuda" if on else "cpu" for on in there)
                    seen = [(p, tuple(t.shape)) for p, t in zip(places, tensors, strict=True)]
                    raise DeviceError(f"{func} of {seen}")
        out = func(*args, **kwargs)
        made = gpu.called_on_gpu and not tensors
        return gpu.put(out) if any(there) or made else out


class _Calls(TorchFunctionMode):
    """Answers questions about devices, and turns moves to another one into copies."""

    def __init__(self, gpu: PretendedGpu):
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        gpu, kwargs = self.gpu, dict(kwargs or {})
        x = args[0] if args else None
        if func == _DEVICE and gpu.holds(x):
            return GPU
        if func == _IS_CUDA:
            return gpu.holds(x)
        if func is Tensor.pin_memory:
            return x
        if func in (Tensor.numpy, Tensor.__array__) and gpu.holds(x):
            raise DeviceError("a tensor of the GPU cannot become an array: use cpu() first")
        if func is Tensor.__deepcopy__:  # copies storages past the dispatcher
            copied = func(*args, **kwargs)
            return gpu.put(copied) if gpu.holds(x) else copied
        if func in (Tensor.cpu, Tensor.cuda):
            return self._move(x, func is Tensor.cuda, kwargs)
        if func is Tensor.to:
            return self._to(x, args[1:], kwargs)
        device = kwargs.get("device")
        if device is None:
            on_gpu = any(map(gpu.holds, _tensors(args))) or any(map(gpu.holds, _tensors(kwargs)))
            return self._call(func, args, kwargs, on_gpu)
        there = torch.device(device).type == "cuda"
        generator = kwargs.get("generator")
        if generator is not None and (generator.device.type == "cuda") != there:
            raise DeviceError(f"{func.__name__} with a generator of {generator.device}")
        kwargs["device"] = CPU if there else device
        return gpu.put(self._call(func, args, kwargs, there), there)

    def _call(self, func: Any, args: Any, kwargs: dict[str, Any], on_gpu: bool) -> Any:
        before, self.gpu.called_on_gpu = self.gpu.called_on_gpu, on_gpu
        try:
            return func(*args, **kwargs)
        finally:
            self.gpu.called_on_gpu = before

    def _to(self, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        there, dtype = self.gpu.holds(x), kwargs.pop("dtype", None)
        for a in (*args, kwargs.pop("device", None), kwargs.pop("other", None)):
            if isinstance(a, Tensor):
                there, dtype = self.gpu.holds(a), a.dtype
            elif isinstance(a, str | torch.device):
                there = torch.device(a).type == "cuda"
            elif isinstance(a, torch.dtype):
                dtype = a
        kwargs.pop("non_blocking", None)
        return self._move(x, there, {"dtype": dtype or x.dtype} | kwargs)

    def _move(self, x: Tensor, there: bool, kwargs: dict[str, Any]) -> Tensor:
        dtype = kwargs.pop("dtype", x.dtype)
        kwargs.pop("non_blocking", None)
        if there == self.gpu.holds(x):
            out = Tensor.to(x, dtype, **kwargs)
            return self.gpu.put(out) if there else out
        return self.gpu.put(Tensor.to(x, dtype, **kwargs | {"copy": True}), there)
