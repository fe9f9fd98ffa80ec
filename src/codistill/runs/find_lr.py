"""A learning-rate range test: one short training in which the rate rises from step to step.

After L. N. Smith, "Cyclical Learning Rates for Training Neural Networks" (WACV 2017). The rate at
which the loss falls fastest is a guess at a good one, and no more: a few steps know nothing of the
end of a training.
"""

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from statistics import mean
from typing import NamedTuple

import torch

from codistill.data.batch import Batch, as_batch
from codistill.methods.minimize import MEASURE
from codistill.runs.new_run import NewRun
from codistill.settings.build_data import Data, mix_labels
from codistill.settings.build_method import make_optimizer, update_options
from codistill.training.device import deterministic, use_device
from codistill.training.fit import train_epoch
from codistill.training.state import TrainingState
from codistill.training.stopping import Stop, Stopped, never

STEPS = 100
_BELOW, _ABOVE = 1000.0, 100.0  # the rates of the test, as factors of that of the settings
_DIVERGED = 2.0  # times the first loss that it has grown by
_SIDE = 3  # steps on each side of one, over which losses are averaged
_FALL = 0.05  # share of the loss: less is no fall


class Step(NamedTuple):
    """A step of the test: its learning rate, the sum of its loss terms, and the mean around it."""

    lr: float
    loss: float
    smooth: float


def range_test(new: NewRun, stop: Stop = never) -> list[Step]:
    """Trains for up to 100 steps, with rates from a thousandth to 100 times that of the settings.

    It ends where the loss has grown by twice its first value. Nothing is written, and the method
    is not to be used afterwards.

    Args:
        new: all that a run begins with.
        stop: asked after each step; when it returns True, the test ends there.
    """
    config, data = new.config, new.data
    device = use_device(config.device, config.threads)
    with deterministic(device):
        torch.manual_seed(config.seed)
        method = new.method.to(device)
        options = dataclasses.replace(update_options(config), ema=0.0)
        state = TrainingState(method, make_optimizer(config, method), options)
        rates = [config.lr / _BELOW * (_BELOW * _ABOVE) ** (i / (STEPS - 1)) for i in range(STEPS)]
        losses: list[float] = []

        def ended() -> bool:
            terms = {n: v[-1] for n, v in state.terms.items() if not n.startswith(MEASURE)}
            losses.append(sum(map(float, terms.values())))
            grown = mean(losses[-_SIDE:]) - min(losses)
            return not grown < _DIVERGED * abs(losses[0]) or stop()

        held_out = data.evaluate_on.get("val")
        method.begin_epoch(0, None if held_out is None else map(as_batch, held_out))
        data.train.views = method.views
        batches = itertools.islice(_again_and_again(data, new), STEPS)
        with contextlib.suppress(Stopped):
            train_epoch(
                state,
                batches,
                config.precision,
                stop=ended,
                factor_at=lambda step: rates[step] / config.lr,
            )
    known = list(itertools.takewhile(math.isfinite, losses))
    smooth = [mean(known[max(0, i - _SIDE) : i + _SIDE + 1]) for i in range(len(known))]
    return [Step(*of) for of in zip(rates, known, smooth, strict=False)]


def suggested(steps: Sequence[Step]) -> float | None:
    """The rate at which the loss falls fastest, to two digits; None if it hardly falls."""
    lowest = min(range(len(steps)), key=lambda i: steps[i].smooth, default=0)
    if lowest < 2 or steps[0].smooth - steps[lowest].smooth < _FALL * abs(steps[0].smooth):
        return None
    inner = range(1, lowest)
    steepest = min(inner, key=lambda i: steps[i + 1].smooth - steps[i - 1].smooth)
    return float(f"{steps[steepest].lr:.1e}")


def _again_and_again(data: Data, new: NewRun) -> Iterator[Batch]:
    """The batches of epoch after epoch."""
    train = mix_labels(new.config, data.train, len(data.classes))
    for epoch in itertools.count():
        train.start_at(epoch, 0)
        yield from train
