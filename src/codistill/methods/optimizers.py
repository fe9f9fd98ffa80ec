"""PyTorch's optimizers with as few operations as the device allows.

On CUDA a step is one kernel for many weights (`fused`). On the CPU PyTorch's fused kernels assume
that a weight and its gradient have one memory layout, and compute nonsense if they do not (PyTorch
2.13); there the weights are only listed (`foreach`), which gives the same bits in less time.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from codistill.errors import InputError, did_you_mean
from codistill.importing import optional
from codistill.networks.peers import Peers

MakeOptimizer = Callable[..., Optimizer]


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


# L-BFGS evaluates the losses several times in a step, Rprop is for whole data sets, SparseAdam is
# for sparse gradients, and Muon for matrices.
_NOT_USABLE = ("LBFGS", "Muon", "Optimizer", "Rprop", "SparseAdam")


def optimizer_by_name(name: str) -> Callable[..., Optimizer]:
    """The function that makes one of PyTorch's optimizers, or one of timm's.

    Args:
        name: name of a class in `torch.optim`, in lower case, such as "adamw"; or timm/NAME.

    Raises:
        InputError: there is no such optimizer, or its steps need more than one gradient.
        MissingExtraError: timm is not installed.
    """
    library, slash, theirs = name.partition("/")
    if slash and library == "timm":
        return _of_timm(theirs)
    ours = {"sgd": sgd, "adam": adam, "adamw": adamw}
    of_torch = {
        kind.__name__.lower(): kind
        for kind in vars(torch.optim).values()
        if isinstance(kind, type) and issubclass(kind, Optimizer)
        if kind.__name__ not in _NOT_USABLE
    }
    known: dict[str, Callable[..., Optimizer]] = of_torch | ours
    if name not in known:
        hint = did_you_mean(name, known)
        raise InputError(f"optimizer {name!r} is not known: {hint} Or give timm/NAME")
    return known[name]


def _of_timm(name: str) -> Callable[..., Optimizer]:
    optim = optional("timm.optim", f"optimizer timm/{name}")
    known = optim.list_optimizers()
    if name not in known:
        raise InputError(f"timm has no optimizer {name!r}: {did_you_mean(name, known)}")
    if optim.get_optimizer_info(name).second_order or name.startswith("lookahead"):
        raise InputError(f"optimizer timm/{name} needs second derivatives, which no step computes")
    return optim.get_optimizer_class(name)


class Shares(NamedTuple):
    """What a weight has of the recipe's learning rate and weight decay: a factor each."""

    lr: float
    decay: float


def in_groups(make: Callable[..., Optimizer], shares: Mapping[Tensor, Shares]) -> MakeOptimizer:
    """A function that makes optimizers in which each weight has its share of the recipe's rates.

    Args:
        make: the function that makes an optimizer of parameters or parameter groups.
        shares: shares by weight; (1, 1) for others. A decay that a method gives for its own group
            stays.
    """

    def grouped(params: Any, **options: Any) -> Optimizer:
        optimizer = make(list(_divided(params, shares)), **options)
        for group in optimizer.param_groups:
            share = group.pop("share")
            group["lr"] *= share.lr
            if not group.pop("own_decay") and "weight_decay" not in options:
                group["weight_decay"] *= share.decay
        return optimizer

    return grouped


def _divided(params: Any, shares: Mapping[Tensor, Shares]) -> Iterator[dict[str, Any]]:
    params = list(params)
    groups = params if params and isinstance(params[0], dict) else [{"params": params}]
    for group in groups:
        kinds: dict[Shares, list[Tensor]] = {}
        for weight in group["params"]:
            kinds.setdefault(shares.get(weight, Shares(1.0, 1.0)), []).append(weight)
        own = {"own_decay": "weight_decay" in group}
        yield from (group | {"params": ps, "share": share} | own for share, ps in kinds.items())


def shares_of(peers: Peers, layer_decay: float, decay_norms: bool) -> dict[Tensor, Shares]:
    """Each weight's share of the learning rate and of the weight decay.

    Args:
        peers: the peers. Weights of a method's own modules have no share here.
        layer_decay: factor of the learning rate from each stage to the one before it. The heads
            have the whole rate.
        decay_norms: whether vectors, that is biases and the weights of normalisation, decay too.
    """
    depths: dict[Tensor, int] = {}  # stages between a weight and the head
    for branch, channels in zip(peers.branches, peers.channels, strict=True):
        stages = [*peers.trunk, *branch]
        for s, stage in enumerate(stages):
            for weight in stage.parameters():
                depths.setdefault(weight, len(channels) - s)
    depths |= {weight: 0 for weight in peers.heads.parameters()}
    return {
        weight: Shares(layer_decay**depth, float(decay_norms or weight.ndim > 1))
        for weight, depth in depths.items()
    }
