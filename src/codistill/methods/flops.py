"""The FLOPs of a forward pass, or of any call.

`torch.utils.flop_counter` counts convolutions and matrix products, with 2 FLOPs per multiply-add:
ResNet-32 on a 32x32 image has 138.3 MFLOPs, the 69 M multiply-adds of the literature. As there,
normalisation, activations and pooling are left out.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from codistill.methods.method import Method
from codistill.methods.modes import eval_mode

_T = TypeVar("_T")


def count_flops(call: Callable[..., _T], *arguments: Any) -> tuple[_T, int]:
    """What a call returns, and the FLOPs that it took, backward passes included."""
    backward = {torch.ops.aten.convolution_backward: _convolution_backward_flops}
    counter = FlopCounterMode(display=False, custom_mapping=backward)
    with counter, sdpa_kernel(SDPBackend.MATH):  # the CPU's own attention is not counted
        returned = call(*arguments)
    return returned, counter.get_total_flops()


@torch.no_grad()
def forward_flops(method: Method, image_size: tuple[int, int]) -> dict[str, int]:
    """FLOPs of evaluating one image: each peer alone, "peers" together, and the whole "method".

    Shared stages count once in "peers". The method stays as it was.
    """
    peers = method.peers
    images = torch.zeros(1, 3, *image_size, device=next(peers.parameters()).device)
    with eval_mode(method):
        alone = {f"peer{k}": count_flops(peers.student(k), images)[1] for k in range(len(peers))}
        together = {"peers": count_flops(peers, [images])[1]}
        return alone | together | {"method": count_flops(method, [images])[1]}


def _convolution_backward_flops(gradient: Any, _: Any, weight: Any, *rest: Any, **__: Any) -> int:
    """As many as forward for the input, and again for the weight, each where it is asked for.

    PyTorch's own count takes a depthwise convolution's gradient for that of a full one.
    """
    batch, _, *size = gradient
    forward = 2 * batch * math.prod(size) * math.prod(weight)
    return forward * sum(rest[-1][:2])
