"""The time of a training step on this machine."""

import time

import torch

from codistill.data.batch import Batch
from codistill.settings.build_method import build_method, make_optimizer
from codistill.settings.config import Config
from codistill.training.device import autocast

_IMAGES_TIMED = 32
TIMES = 3  # other processes disturb the fastest step least


def seconds_per_image(
    config: Config, classes: int, image_size: tuple[int, int], device: torch.device, times: int
) -> float:
    """Seconds per image of a training step: the fastest of `times`, after one that does not count.

    On a CPU the batch has at most 32 images.
    """
    method = build_method(config, classes, image_size).to(device).train()
    size = config.batch_size if device.type == "cuda" else min(config.batch_size, _IMAGES_TIMED)
    optimizers = method.optimizers(make_optimizer(config, method))
    views = [torch.randn(size, 3, *image_size, device=device) for _ in range(method.views)]
    batch = Batch(views, torch.randint(classes, (size,), device=device))
    method.begin_epoch(0, None)
    seconds = []
    for _ in range(1 + times):
        begin = time.perf_counter()
        with autocast(device, config.precision):
            method.training_step(batch, optimizers, 0)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - begin)
    return min(seconds[1:]) / size
