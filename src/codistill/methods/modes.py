"""Networks that run without being trained: frozen ones, and any in eval mode for a while."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class Frozen(nn.Module):
    """A module without gradients that stays in eval mode.

    The module is taken over: its parameters require no gradients from now on.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Frozen":
        return super().train(False)

    @torch.no_grad()
    def forward(self, *args: Any) -> Any:
        return self.module(*args)


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Every part of `module` in eval mode for a while, and then in the mode that it was in."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, training in modes:
            m.training = training
