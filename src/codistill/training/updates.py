"""What a step of any method does besides: parts of a batch, clipping, averages, frozen stages."""

from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from codistill.checks import check, setting
from codistill.errors import InputError
from codistill.methods.method import Method


@dataclass(frozen=True)
class UpdateOptions:
    """How the steps of a training update the weights, for every method.

    Args:
        clip_norm: largest norm of the gradient of all weights of an optimizer together; None does
            not clip.
        accumulate: number of parts that a batch is computed in, one after another. The optimizers
            step once per batch. It saves memory; batch normalisation sees the parts.
        ema: decay of an exponential moving average of all weights and statistics, such as 0.999;
            0 is off. What is evaluated and kept is then the average.
        freeze: number of first stages of each network that do not learn.
        freeze_epochs: number of epochs after which they learn as well; None: never.
    """

    clip_norm: float | None = setting(None, above=0)
    accumulate: int = setting(1, above=0)
    ema: float = setting(0.0, at_least=0, below=1)
    freeze: int = setting(0, at_least=0)
    freeze_epochs: int | None = setting(None, above=0)

    def __post_init__(self) -> None:
        check(self)
        if self.freeze_epochs is not None and not self.freeze:
            raise InputError(
                f"freeze_epochs is {self.freeze_epochs}, but nothing is frozen: give freeze, a "
                "number of stages"
            )


class Average(AveragedModel):
    """An exponential moving average of a method: weights, and statistics of batch normalisation.

    In the first steps the decay is lower, (1 + n) / (10 + n) after n updates, as in timm: the
    weights that were drawn at the start are forgotten sooner.

    Args:
        method: the method, which is copied.
        decay: largest decay.
    """

    def __init__(self, method: Method, decay: float):
        super().__init__(method, multi_avg_fn=self._move, use_buffers=True)  # type: ignore[arg-type]
        self.decay = decay

    @property
    def method(self) -> Method:
        """The averaged method."""
        return self.module  # type: ignore[return-value]

    def _move(self, averages: list[Tensor], now: list[Tensor], _: Tensor) -> None:
        n = int(self.n_averaged)  # stays on the CPU, so that nothing waits for a GPU
        if averages[0].is_floating_point():
            weight = 1 - min(self.decay, (1 + n) / (10 + n))
            torch._foreach_lerp_(averages, now, weight)
        else:  # counters
            torch._foreach_copy_(averages, now)


def frozen_stages(method: Method, stages: int) -> list[nn.Module]:
    """The first stages of every peer, shared ones included.

    Raises:
        InputError: a network has no stage more than those.
    """
    peers = method.peers
    fewest = min(map(len, peers.channels))
    if stages >= fewest:
        raise InputError(
            f"freeze is {stages}, but a network has {fewest} stages: give at most {fewest - 1}, so "
            "that one learns"
        )
    own = max(0, stages - peers.shared)
    branches = [stage for branch in peers.branches for stage in islice(branch.children(), own)]
    return [*peers.trunk[:stages], *branches]


def set_frozen(stages: list[nn.Module], frozen: bool) -> None:
    """Freezes stages, or lets them learn. Frozen batch normalisation uses the statistics it has."""
    for stage in stages:
        stage.requires_grad_(not frozen)
        if frozen:
            stage.eval()
