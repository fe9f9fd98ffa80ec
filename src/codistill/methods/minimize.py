"""The one place where loss terms become an update of the weights."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from codistill import distributed
from codistill.methods.gradient_sums import GradientSums

MEASURE = "measure/"
"""The beginning of a measurement's name; a step returns measurements beside its loss terms."""


def objective(losses: Mapping[str, Tensor]) -> Tensor:
    """The scalar that is minimised: the sum of the loss terms, measurements left out."""
    return torch.stack([v for name, v in losses.items() if not name.startswith(MEASURE)]).sum()


def minimize(losses: dict[str, Tensor], optimizer: Optimizer) -> None:
    """Takes one step of `optimizer` down the sum of `losses`, measurements left out.

    No other code runs a backward pass. The gradients are cleared first, so that nothing which an
    earlier step of an alternating method left behind leaks into this one. Within `Updates.active`,
    the step is clipped, scaled, made of parts or left to another library as those say. Of several
    processes each takes the step that the gradients of all of them make.
    """
    _CURRENT.get(_PLAIN).take(objective(losses), optimizer)


class OtherGradients(Protocol):
    """The gradients of peers that other processes have."""

    def norm(self, optimizer: Optimizer, like: Tensor) -> Tensor:
        """The norm of the gradient of all weights of an optimizer, a scalar like a loss."""

    def spread_overflow(self, optimizer: Optimizer, like: Tensor) -> None:
        """Makes a gradient here infinite or not a number if one elsewhere is."""


class Updates:
    """How the updates of a training are made of its losses. No method needs to know of it.

    `backward` and `step` open `minimize` to the engine of another library, such as Lightning or
    Accelerate: its scaling for float16, its clipping, its counts of steps. Keep one object for a
    training, since it holds the gradients of parts:

        updates = Updates(backward=accelerator.backward)
        ...
        with updates.active(last=accelerator.sync_gradients):
            method.training_step(batch, optimizers, epoch)

    Args:
        clip_norm: largest norm of the gradient of all weights of an optimizer together; a longer
            one is shortened to it. None leaves gradients as they are.
        backward: runs the backward pass of a scalar loss, and may change gradients after it; those
            of several processes are then summed when it has ended. Default: `Tensor.backward`.
        step: steps an optimizer, whose gradients are complete. Clip here what `backward` scaled.
            Default: `optimizer.step()`.

    Attributes:
        statistics: buffers of which processes take the mean with every step, each with its share of
            the batch: the statistics of batch normalisation. One process leaves them as they are.
        elsewhere: the gradients of peers that other processes have; None if there are none.
        places: the place of each weight in the forward pass, by which gradients are sent to other
            processes. Default: that in the optimizer.
    """

    def __init__(
        self,
        clip_norm: float | None = None,
        backward: Callable[[Tensor], object] = Tensor.backward,
        step: Callable[[Optimizer], object] | None = None,
    ):
        self.clip_norm = clip_norm
        self._backward, self._step = backward, step
        self.statistics: list[Tensor] = []
        self.elsewhere: OtherGradients | None = None
        self.places: Mapping[Tensor, int] = {}
        self._scaled = False
        self._part, self._last = 1.0, True
        self._piece: float | None = None
        self._scalers: dict[Optimizer, GradScaler] = {}
        self._sums: dict[Optimizer, list[Tensor | None]] = {}

    @contextlib.contextmanager
    def active(
        self,
        scaled: bool = False,
        share: float = 1.0,
        last: bool = True,
        piece: float | None = None,
    ) -> Iterator[None]:
        """Within it, `minimize` makes updates in this way.

        Args:
            scaled: whether losses are scaled up before the backward pass, and gradients down after
                it: float16 has no smaller numbers than 6e-8. A step whose gradients overflow is
                left out, and the scale is halved; each optimizer has its own. Not where `backward`
                scales.
            share: weight of the losses, as a share of the batch that a part of it has.
            last: whether this part is the last one. The optimizers step only then, each down the
                sum over all parts.
            piece: the share that this process has of the batch of all W processes, as
                `Batch.share` says. Default: 1 / W.
        """
        self._scaled, self._part, self._last, self._piece = scaled, share, last, piece
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(token)

    def take(self, loss: Tensor, optimizer: Optimizer) -> None:
        """Adds the gradient of a loss to that of earlier parts, and steps after the last one."""
        weights = [w for group in optimizer.param_groups for w in group["params"]]
        piece = 1 / distributed.team().size if self._piece is None else self._piece
        share = piece * self._part
        earlier = self._sums.pop(optimizer, None) or [None] * len(weights)
        for w, gradient in zip(weights, earlier, strict=True):
            w.grad = gradient  # Accelerate's zero_grad leaves those of parts where they are
        scaler = self._scaler(optimizer, loss.device)
        joint = self._last and distributed.team().size > 1
        sums = GradientSums(self._in_order(weights)) if joint else None
        during = sums if self._backward is Tensor.backward else None
        with torch.autocast(loss.device.type, enabled=False), during or contextlib.nullcontext():
            self._backward(scaler.scale(loss if share == 1 else loss * share))
        if self._last:
            if sums is not None:
                self._add_up(sums, piece)
            if self.elsewhere is not None and self._scaled:
                self.elsewhere.spread_overflow(optimizer, loss.detach())
            if self.clip_norm is not None:
                scaler.unscale_(optimizer)
                self._clip(weights, optimizer, self.clip_norm, loss.detach())
            if self._step is None:
                scaler.step(optimizer)
            else:
                self._step(optimizer)
            scaler.update()
        else:
            self._sums[optimizer] = [w.grad for w in weights]
            for w in weights:  # other optimizers of an alternating method may hold them too
                w.grad = None
        torch.clear_autocast_cache()  # it holds the weights as they were before this step

    def _in_order(self, weights: Iterable[Tensor]) -> list[Tensor]:
        return sorted(weights, key=lambda w: self.places.get(w, len(self.places)))

    def _clip(
        self, weights: list[Tensor], optimizer: Optimizer, longest: float, like: Tensor
    ) -> None:
        if self.elsewhere is None:
            torch.nn.utils.clip_grad_norm_(weights, longest)
        else:
            norm = self.elsewhere.norm(optimizer, like)
            torch.nn.utils.clip_grads_with_norm_(weights, longest, norm)

    @torch.no_grad()
    def _add_up(self, gradients: GradientSums, piece: float) -> None:
        """Adds gradients and statistics up over the team."""
        if self.statistics:
            torch._foreach_mul_(self.statistics, piece)
        gradients.finish(self.statistics)

    def state_dict(self, optimizers: Mapping[str, Optimizer]) -> dict[str, Any]:
        """The scale of each optimizer's losses, by the optimizer's name; empty without scaling."""
        return {
            n: self._scalers[o].state_dict() for n, o in optimizers.items() if o in self._scalers
        }

    def load_state_dict(
        self, state: Mapping[str, Any], optimizers: Mapping[str, Optimizer]
    ) -> None:
        """Restores what `state_dict` returned."""
        for name, of_scaler in state.items():
            optimizer = optimizers[name]
            device = optimizer.param_groups[0]["params"][0].device
            self._scalers[optimizer] = GradScaler(device.type)
            self._scalers[optimizer].load_state_dict(of_scaler)

    def _scaler(self, optimizer: Optimizer, device: torch.device) -> GradScaler:
        if not self._scaled:
            return GradScaler(device.type, enabled=False)
        if optimizer not in self._scalers:
            self._scalers[optimizer] = GradScaler(device.type)
        return self._scalers[optimizer]


_PLAIN = Updates()
_CURRENT: ContextVar[Updates] = ContextVar("updates")
