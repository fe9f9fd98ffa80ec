"""FLOPs of a training step."""

import torch

from codistill.analysis.cost.probing import probing, random_views, some_labels
from codistill.data.batch import Batch
from codistill.methods.flops import count_flops
from codistill.methods.method import Method

_IMAGES = 2  # batch normalisation cannot train on one
_EPOCH = 10_000  # when distillation is on, and every term has its full weight


def step_flops(method: Method, image_size: tuple[int, int]) -> float:
    """FLOPs of a training step for one image, as `methods.flops` counts them.

    These are forward and backward passes of all that a step computes, such as a teacher's forward
    pass or AFD's discriminators, with every term that a method adds in the course of a training.
    A step on two random images is made with a copy; the method stays as it was.
    """
    with probing(method) as probe:
        views = random_views(probe, image_size, _IMAGES)
        batch = Batch(views, some_labels(probe, _IMAGES))
        optimizers = probe.optimizers(lambda params: torch.optim.SGD(params, lr=0.1))
        probe.begin_epoch(_EPOCH, None)
        return count_flops(probe.training_step, batch, optimizers, _EPOCH)[1] / _IMAGES
