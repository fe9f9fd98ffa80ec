"""PyTorch's optimizers with as few operations as the device allows.

On CUDA a step is one kernel for many weights (`fused`). On the CPU PyTorch's fused kernels assume
that a weight and its gradient have one memory layout, and compute nonsense if they do not (PyTorch
2.13); there the weights are only listed (`foreach`), which gives the same bits in less time.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import Optimizer


def sgd(params: Any, **options: Any) -> Optimizer:
    """`torch.optim.SGD` of parameters or parameter groups."""
    optimizer = torch.optim.SGD(params, **options)
    for group in optimizer.param_groups:
        devices = {p.device.type for p in group["params"]}
        group["fused"] = devices == {"cuda"}
        group["foreach"] = devices == {"cpu"}
    return optimizer


def adam(params: Any, **options: Any) -> Optimizer:
    """`torch.optim.Adam` of parameters or parameter groups."""
    optimizer = torch.optim.Adam(params, **options)
    for group in optimizer.param_groups:
        group["fused"] = {p.device.type for p in group["params"]} == {"cuda"}
    return optimizer


def adamw(params: Any, **options: Any) -> Optimizer:
    """`torch.optim.AdamW` of parameters or parameter groups: Adam with decoupled weight decay."""
    optimizer = torch.optim.AdamW(params, **options)
    for group in optimizer.param_groups:
        group["fused"] = {p.device.type for p in group["params"]} == {"cuda"}
    return optimizer


def load_state(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """`optimizer.load_state_dict`, but `fused` and `foreach` stay as this device wants them."""
    pairs = zip(state["param_groups"], optimizer.param_groups, strict=True)
    groups = [
        saved | {way: own[way] for way in ("fused", "foreach") if way in own}
        for saved, own in pairs
    ]
    optimizer.load_state_dict({**state, "param_groups": groups})
