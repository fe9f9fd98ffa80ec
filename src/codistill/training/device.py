"""The device and the precision of a training."""

from contextlib import AbstractContextManager
from typing import Literal

import torch
from torch import nn

from codistill.errors import InputError, reason, require_one_of

Precision = Literal["fp32", "bf16"]
"""bf16 is autocast: weights and losses stay float32."""


def check_precision(precision: str) -> None:
    require_one_of("precision", precision, ("fp32", "bf16"))


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is CUDA if there is one, else the CPU.

    Raises:
        InputError: the device cannot be used.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        why = f"device {name!r} cannot be used here ({reason(error)}): try cpu"
        raise InputError(why) from error
    return device


def use_device(name: str, threads: int | None) -> torch.device:
    """The device of that name. Gives PyTorch so many CPU threads; None leaves their number."""
    if threads:
        torch.set_num_threads(threads)
    return choose_device(name)


def device_of(module: nn.Module) -> torch.device:
    """The device of the module's weights."""
    return next((p.device for p in module.parameters()), torch.device("cpu"))
