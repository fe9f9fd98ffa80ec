"""The time that a network takes for one image on this machine."""

import time
from statistics import median

import torch
from torch import nn

_WARM_UP = 2
_MOST = 30


def latency(network: nn.Module, image_size: tuple[int, int], budget: float = 0.2) -> float:
    """Seconds of a forward pass with one image: the median of up to 30 passes.

    Args:
        network: a network in eval mode, on the device to measure.
        image_size: height and width of the image.
        budget: seconds after which no further pass begins.
    """
    device = next(network.parameters()).device
    image = torch.zeros(1, 3, *image_size, device=device)
    seconds: list[float] = []
    with torch.inference_mode():
        while len(seconds) < _WARM_UP + 3 or (sum(seconds) < budget and len(seconds) < _MOST):
            begin = time.perf_counter()
            network(image)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - begin)
    return median(seconds[_WARM_UP:])
