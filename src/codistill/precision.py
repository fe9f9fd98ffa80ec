"""The numbers in which a forward pass computes."""

from contextlib import AbstractContextManager
from typing import Literal

import torch

from codistill.errors import InputError

Precision = Literal["fp32", "bf16"]
"""bf16 is autocast: weights and losses stay float32."""


def check_precision(precision: str) -> None:
    if precision not in ("fp32", "bf16"):
        raise InputError(f"precision is {precision!r}: give 'fp32' or 'bf16'")


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
