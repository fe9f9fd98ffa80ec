"""The device and the precision of a training."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import torch
import torch.utils.deterministic
from torch import nn

from codistill import distributed
from codistill.errors import InputError, reason, require_one_of

Precision = Literal["fp32", "bf16", "fp16"]
"""bf16 and fp16 are autocast: weights and losses stay float32."""

_LOW = {"bf16": torch.bfloat16, "fp16": torch.float16}


def check_precision(precision: str) -> None:
    require_one_of("precision", precision, ("fp32", "bf16", "fp16"))


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    return torch.autocast(device.type, _LOW.get(precision), enabled=precision in _LOW)


def bf16_notes(device: torch.device, precision: Precision) -> list[str]:
    """A note if the GPU has no units for bf16, as those before Ampere (2020), and emulates it."""
    if device.type != "cuda" or precision != "bf16":
        return []
    if torch.cuda.get_device_capability(device) >= (8, 0):
        return []
    name = torch.cuda.get_device_name(device)
    return [f"{name} emulates bf16 slowly: --precision fp16 or fp32 is faster there"]


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is CUDA if there is one, else the CPU.

    Of several processes on a machine each takes the GPU of its own number.

    Raises:
        InputError: the device cannot be used.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and distributed.size() > 1:
        name = _own_gpu(name)
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        why = f"device {name!r} cannot be used here ({reason(error)}): try cpu"
        raise InputError(why) from error
    return device


def _own_gpu(name: str) -> str:
    if name != "cuda":
        raise InputError(
            f"device {name!r} is one GPU for {distributed.size()} processes: give cuda, and each "
            "takes its own"
        )
    # srun may show each process its own GPU alone.
    return f"cuda:{distributed.place().local_rank % max(1, torch.cuda.device_count())}"


def require_device(name: str) -> None:
    """Raises InputError if there is no device of that name.

    Unlike `choose_device` it does not begin to use a GPU: that takes about 500 MB of its memory as
    long as the process lives, and some clusters let only one process use a GPU.
    """
    try:
        device = torch.device(name) if name != "auto" else None
    except RuntimeError:
        device = None
    if device is None or device.type != "cuda":
        if name != "auto":
            choose_device(name)
        return
    count = torch.cuda.device_count()
    if (device.index or 0) >= count:
        there = f"there are {count} GPUs" if count != 1 else "there is one GPU, cuda:0"
        raise InputError(f"device {name!r} cannot be used here ({there}): try cpu")


def use_device(name: str, threads: int | None) -> torch.device:
    """The device of that name. Gives PyTorch so many CPU threads; None leaves their number."""
    if threads:
        torch.set_num_threads(threads)
    return choose_device(name)


def device_of(module: nn.Module) -> torch.device:
    """The device of the module's weights."""
    return next((p.device for p in module.parameters()), torch.device("cpu"))


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Makes a GPU give the same bits for the same seed, and makes it PyTorch's current GPU.

    Operations that have no such form run all the same, and PyTorch warns of them (docs/gpu.md). All
    settings are put back afterwards. On other devices nothing changes.
    """
    if device.type != "cuda":
        yield
        return
    variable, cudnn = "CUBLAS_WORKSPACE_CONFIG", torch.backends.cudnn
    workspace = os.environ.get(variable)
    on, warns = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    fresh_memory: Any = torch.utils.deterministic
    benchmark, fill = cudnn.benchmark, fresh_memory.fill_uninitialized_memory
    os.environ.setdefault(variable, ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    cudnn.benchmark = False
    # It would write NaN into the memory of every result first: two to three times the kernels.
    fresh_memory.fill_uninitialized_memory = False
    try:
        with torch.cuda.device(device):
            yield
    finally:
        fresh_memory.fill_uninitialized_memory = fill
        cudnn.benchmark = benchmark
        torch.use_deterministic_algorithms(on, warn_only=warns)
        if workspace is None:
            os.environ.pop(variable, None)


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Convolutions in full float32 on CUDA, in place of TF32, for as long as the block runs."""
    cudnn: Any = torch.backends.cudnn
    exact: Any
    owner, name, exact = cudnn, "allow_tf32", False
    if hasattr(cudnn, "conv"):  # PyTorch 2.9; with this switch the other one may be refused
        owner, name, exact = cudnn.conv, "fp32_precision", "ieee"
    before = getattr(owner, name)
    setattr(owner, name, exact)
    try:
        yield
    finally:
        setattr(owner, name, before)


def random_numbers_kept(device: torch.device) -> AbstractContextManager[None]:
    """The random numbers of the CPU and of a GPU are afterwards what they were before."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])
