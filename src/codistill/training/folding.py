"""Batch normalisation folded into the convolutions before it: the same function, faster.

It works for any architecture. One forward pass shows which convolution's output went into a batch
normalisation and nowhere else. A copy of the method, or of a network, merges these pairs, and is
used only if its logits agree.
"""

import copy
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.hooks import RemovableHandle

from codistill.methods.method import Method
from codistill.training.device import exact_convolutions
from codistill.training.sync_bn import SYNCHRONISED

WORTH = 512  # images to evaluate: with fewer, the copy costs more than it saves
TRIED = 16  # images on which the copy is compared
_TOLERANCE = 1e-4  # share of the largest logit; float32 leaves 1e-6 to 1e-5

Pair = tuple[nn.Conv2d, nn.BatchNorm2d]
M = TypeVar("M", bound=nn.Module)


def folded(method: Method, views: Sequence[Tensor], images: int) -> Method:
    """A copy of `method` that computes the same classifiers faster, or `method` itself.

    The copy shares all weights that it does not change. It is for evaluation alone, since it has no
    feature maps between a convolution and its batch normalisation. A method with hooks is returned
    itself: somebody wants to see what happens inside.

    Args:
        method: the method, in eval mode.
        views: the first batch to evaluate, normalised; the copy is tried on 16 of its images.
        images: the number of images to evaluate.
    """
    few = [view[:TRIED] for view in views]
    return _fast(method, lambda m: m(few).classifiers, images)


def folded_network(network: nn.Module, batch: Tensor, images: int = WORTH) -> nn.Module:
    """A copy of a network that computes the same logits faster, or the network itself.

    Args:
        network: the network, in eval mode; see `folded` for the limits of the copy.
        batch: normalised images (B, 3, H, W); the copy is tried on 16 of them.
        images: the number of images to compute.
    """
    return _fast(network, lambda m: {"": m(batch[:TRIED])}, images)


def _fast(module: M, run: Callable[[M], dict[str, Tensor]], images: int) -> M:
    """The folded copy of a module, if it is worth it and `run` returns the same; or itself."""
    hooked = any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
    if images < WORTH or hooked:
        return module
    try:
        with exact_convolutions():
            return _folded(module, run) or module
    except Exception:  # somebody's network may not allow it in any of many ways
        return module


def _folded(module: M, run: Callable[[M], dict[str, Tensor]]) -> M | None:
    tensors = [*module.parameters(), *module.buffers()]
    fast = copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})
    watch = _Watch(fast)
    with watch:
        expected = run(fast)
    merged: dict[nn.Module, nn.Module] = {}
    for conv, bn in watch.pairs():
        merged[conv] = fuse_conv_bn_eval(conv, bn).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        merged[bn] = _after(bn)
    for parent in list(fast.modules()):
        for name, child in parent._modules.items():
            if child is not None:
                parent._modules[name] = merged.get(child, child)
    return fast if merged and _agree(run(fast), expected) else None


def _normalises(module: nn.Module) -> TypeGuard[nn.BatchNorm2d]:
    """Whether the module is plain batch normalisation, or timm's with an activation."""
    if type(module) is nn.BatchNorm2d or type(module) in SYNCHRONISED:
        return True
    timm = sys.modules.get("timm.layers.norm_act")  # imported wherever there is such a module
    return timm is not None and type(module) is timm.BatchNormAct2d


def _after(bn: Any) -> nn.Module:
    """What remains of batch normalisation: nothing, or the activation inside timm's."""
    return nn.Sequential(bn.drop, bn.act) if hasattr(bn, "act") else nn.Identity()


def _agree(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    if found.keys() != expected.keys():
        return False
    pairs = [(found[name].float(), expected[name].float()) for name in expected]
    return all(bool((x - y).abs().max() <= _TOLERANCE * y.abs().max()) for x, y in pairs)


class _Watch(TorchDispatchMode):
    """Watches in a forward pass what convolutions return and which modules read it."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self._module = module
        self._calls: Counter[nn.Module] = Counter()
        self._made: dict[int, tuple[Tensor, nn.Conv2d]] = {}  # kept: an id is not given again
        self._normalised: dict[int, nn.BatchNorm2d] = {}
        self._other_uses: Counter[int] = Counter()
        self._within: nn.Module | None = None
        self._hooks: list[RemovableHandle] = []

    def pairs(self) -> list[Pair]:
        """Pairs that are called once each; only the second reads the output of the first."""
        return [
            (conv, bn)
            for key, (_, conv) in self._made.items()
            if (bn := self._normalised.get(key)) is not None
            and self._calls[conv] == self._calls[bn] == 1
            and not conv.training
            and not self._other_uses[key]
        ]

    def __enter__(self) -> "_Watch":
        for module in self._module.modules():
            if type(module) is nn.Conv2d:  # a subclass may do something else
                self._hooks.append(module.register_forward_hook(self._after_conv))
            elif _normalises(module) and module.running_mean is not None:
                self._hooks.append(module.register_forward_pre_hook(self._before_bn))
                self._hooks.append(module.register_forward_hook(self._after_bn))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for hook in self._hooks:
            hook.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._within is None:
            for x in tree_iter((args, kwargs)):
                if id(x) in self._made:
                    self._other_uses[id(x)] += 1
        return func(*args, **kwargs)

    def _after_conv(self, conv: nn.Module, args: Any, out: Tensor) -> None:
        assert isinstance(conv, nn.Conv2d)
        self._calls[conv] += 1
        self._made[id(out)] = out, conv

    def _before_bn(self, bn: nn.Module, args: Any) -> None:
        assert isinstance(bn, nn.BatchNorm2d)
        self._calls[bn] += 1
        self._within = bn
        key = id(args[0]) if args else None
        if key in self._normalised:
            self._other_uses[key] += 1
        elif key in self._made and not bn.training:
            self._normalised[key] = bn

    def _after_bn(self, bn: nn.Module, args: Any, out: Tensor) -> None:
        self._within = None
