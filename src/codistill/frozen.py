"""Networks that are run while others are trained, but are not trained themselves."""

from typing import Any

import torch
from torch import nn


class Frozen(nn.Module):
    """A module without gradients, in eval mode whatever mode it is put in.

    Takes the module over: its parameters ask for no gradients from now on.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Frozen":
        return super().train(False)

    @torch.no_grad()
    def forward(self, *args: Any) -> Any:
        return self.module(*args)
