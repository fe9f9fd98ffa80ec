"""The state of a training: the method, its optimizers and its history, for checkpoints."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from codistill import distributed
from codistill.data.batches.order import mix
from codistill.errors import InputError
from codistill.methods.method import Method
from codistill.methods.minimize import MEASURE, Updates
from codistill.methods.optimizers import MakeOptimizer, load_state, sgd
from codistill.training.device import device_of
from codistill.training.placement import Placement, Where
from codistill.training.record import Record
from codistill.training.sync_bn import batch_is_repeated
from codistill.training.updates import Average, UpdateOptions, frozen_stages, set_frozen

_ALIKE = 1e-3  # share by which rounding may part the losses of two processes, at most
_STEPS_BETWEEN_CHECKS = 50  # a check waits for the device, which must not happen in every step


class NonFiniteError(FloatingPointError):
    """A loss term or a weight became infinite or not a number. The message names it."""


class TrainingState:
    """A method, its optimizers, and how far they have come: all that a training needs to go on.

    Several processes (`codistill.distributed`) make it together, and begin with the weights of the
    first one. `check_losses` and `state_dict` are then called by all of them.

    Args:
        method: the peers and how they learn.
        make_optimizer: a function that builds an optimizer of parameters or parameter groups, such
            as `functools.partial(torch.optim.SGD, lr=0.1)`. Default: see `fit`.
        options: how steps update the weights. Default: as they are.
        placement: what several processes divide: "data", the images of every batch; or "peers", of
            which each process then has one. The method of each process loses the others.

    Attributes:
        updates: makes the updates of losses, as the options say.
        placement: the division of the peers among processes; None if each process has them all.
        epoch: number of complete epochs.
        step: number of complete steps of the present epoch.
        terms: the value of every loss term and every measurement in every step of the present
            epoch, on the device.
        history: one record per complete epoch, as `fit` returns them.
        images: number of images of these steps, of all processes.
        seconds: time spent training in the present epoch, by earlier processes too.
    """

    def __init__(
        self,
        method: Method,
        make_optimizer: MakeOptimizer | None = None,
        options: UpdateOptions | None = None,
        placement: Where = "data",
    ):
        distributed.take_from_first(method.state_dict().values())
        self.method = method
        self.options = options or UpdateOptions()
        self.updates = Updates(self.options.clip_norm)
        self.optimizers = method.optimizers(make_optimizer or _paper_sgd)
        self.placement = Placement(method, self.optimizers) if placement == "peers" else None
        self.updates.elsewhere = self.placement
        self.updates.places = {w: i for i, w in enumerate(method.parameters())}
        self._average = Average(method, self.options.ema) if self.options.ema else None
        self._frozen = frozen_stages(method, self.options.freeze)
        for group in self._groups():
            group.setdefault("initial_lr", group["lr"])
        self.epoch = 0
        self.step = 0
        self.terms: dict[str, list[Tensor]] = {}
        self.history: list[Record] = []
        self.images = 0
        self.seconds = 0.0
        self._checked = 0
        self._shares: list[float] = []
        self._seed = torch.initial_seed()

    def set_lr(self, factor: float) -> float:
        """Sets every learning rate for the present epoch; returns that of the first group.

        `factor` is the recipe's. It multiplies the learning rate that an optimizer began with,
        unless the method gives that optimizer a schedule of its own.
        """
        for name, optimizer in self.optimizers.items():
            own = self.method.lr_factor(name, self.epoch, factor)
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * own
        return next(self._groups())["lr"]

    @property
    def result(self) -> Method:
        """The method that is evaluated and kept: the average, if there is one."""
        return self.method if self._average is None else self._average.method

    @contextlib.contextmanager
    def whole(self) -> Iterator[Method]:
        """Yields `result`, with all peers in the first process; all processes go through it."""
        with self.placement.whole(self.result) if self.placement else contextlib.nullcontext():
            yield self.result

    def share_buffers(self) -> None:
        """Gives every process those buffers of the first one that all have."""
        distributed.take_from_first(self._common(self.method.named_buffers()))

    def require_equal(self, when: str) -> None:
        """Raises RuntimeError if weights that several processes have are not the same.

        Kernels of GPUs may round otherwise in each process. There the others take over what the
        first one has of the modules that are no peers; the losses are compared at every check.
        """
        if self.placement is not None and device_of(self.method).type == "cuda":
            distributed.take_from_first(self._common(self.method.state_dict().items()))
        distributed.require_equal(self.method, when)

    def begin(self) -> None:
        """Sets modes for the present epoch: training, and which stages are frozen."""
        self.method.train()
        until = self.options.freeze_epochs
        set_frozen(self._frozen, until is None or self.epoch < until)
        if distributed.team().size > 1:
            self.updates.statistics = list(_moving_statistics(self.method))

    def begin_step(self, repeated: bool = False) -> None:
        """Gives each piece of a batch random numbers of its own, which no file has to keep.

        Args:
            repeated: whether all of them have the same images.
        """
        if distributed.size() > 1:
            batch_is_repeated(repeated)
            torch.manual_seed(mix(self._seed, self.epoch, self.step, distributed.team().rank))

    def record(self, losses: Mapping[str, Tensor], images: int = 0, share: float = 1.0) -> None:
        """Counts a step and keeps what it returned; now and then checks that it is finite.

        Args:
            losses: loss terms and measurements by name.
            images: number of images of the step, of all processes.
            share: the share of them that this process has.
        """
        if self.step and losses.keys() != self.terms.keys():
            raise InputError(
                f"the method returned the terms {sorted(losses)} in step {self.step + 1}, but "
                f"{sorted(self.terms)} before: return the same in every step of an epoch, zero "
                "where one is off"
            )
        for name, value in losses.items():
            self.terms.setdefault(name, []).append(value.detach())
        self.step += 1
        self.images += images
        if distributed.team().size > 1:
            self._shares.append(share)
        if self._average is not None:
            self._average.update_parameters(self.method)
        first = self.placement is not None and not self.epoch and self.step == 1
        if first or self.step % _STEPS_BETWEEN_CHECKS == 0:
            self.check_losses()

    def means(self) -> Record:
        """The mean over the steps so far of every loss term and measurement, as a record has it."""
        return {
            name if name.startswith(MEASURE) else f"loss/{name}": torch.stack(values).mean().item()
            for name, values in self.terms.items()
        }

    def end_epoch(self, record: Record) -> None:
        """Closes the present epoch with its record."""
        self.history.append(record)
        self.epoch += 1
        self.step, self.images, self.seconds = 0, 0, 0.0
        self.terms, self._checked, self._shares = {}, 0, []

    def check_losses(self) -> None:
        """Raises NonFiniteError if a term was not finite since the last check."""
        if self._checked == self.step:
            return
        values = torch.stack([torch.stack(v[self._checked :]) for v in self.terms.values()])
        if distributed.team().size > 1:
            values = self._of_all(values)
        if self.placement is not None:
            self._require_same_losses(values)
        bad = (~values.isfinite()).cpu()  # (terms, steps)
        if bad.any():
            step = int(bad.any(dim=0).int().argmax())
            names = [_called(n) for n, b in zip(self.terms, bad[:, step], strict=True) if b]
            raise NonFiniteError(
                f"{' and '.join(names)} is not finite "
                f"({values[bad[:, step], step].tolist()[0]}) in epoch {self.epoch + 1}, step "
                f"{self._checked + step + 1}: lower the learning rate, or look at the data"
            )
        self._checked = self.step

    def _of_all(self, values: Tensor) -> Tensor:
        """The terms of all processes together, (terms, steps), in the place of this one's."""
        shares = values.new_tensor(self._shares)
        sums = torch.cat([values * shares, shares[None]])
        distributed.add_up([sums])
        if abs((whole := float(sums[-1].mean())) - 1) > 0.001:
            raise InputError(
                f"the pieces of {distributed.size()} processes add up to {whole:.3g} batches: "
                "Batch(...).piece_of(images) needs the number of images in all pieces"
            )
        for of_term, now in zip(self.terms.values(), sums, strict=False):
            of_term[self._checked :] = now
        self._shares = []
        return sums[:-1]

    def _require_same_losses(self, values: Tensor) -> None:
        """Raises RuntimeError if processes with different peers do not have the same losses."""
        firsts = values.clone()
        distributed.take_from_first([firsts])
        alike = torch.allclose(values, firsts, rtol=_ALIKE, atol=_ALIKE, equal_nan=True)
        if not all(distributed.of_all(alike)):
            raise RuntimeError(
                f"{type(self.method).__name__} has other losses in each process: give all of them "
                "the same batches; or it reads more of the peers than their outputs: leave out "
                "--placement peers"
            )

    def check_weights(self) -> None:
        """Raises NonFiniteError if a weight or a buffer of the method is not finite."""
        for name, value in self.method.state_dict().items():
            if value.is_floating_point() and not value.isfinite().all():
                raise NonFiniteError(
                    f"weight {name!r} is not finite after {self.epoch} epochs and {self.step} "
                    "steps: lower the learning rate, or look at the data"
                )

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and strings in dicts and lists: safe for `torch.load`.

        With peers in different processes, that of the first one has all; one process can go on
        with it, or several. Of random numbers it holds those of the CPU and of the training's own
        GPU, if it has one.
        """
        if distributed.size() > 1:
            self.check_losses()
        return {
            "method": self._of_all_peers(self.method),
            "optimizers": {name: self._of_all_weights(o) for name, o in self.optimizers.items()},
            "epoch": self.epoch,
            "step": self.step,
            "terms": {name: torch.stack(values) for name, values in self.terms.items()},
            "history": self.history,
            "images": self.images,
            "seconds": self.seconds,
            "scales": self.updates.state_dict(self.optimizers),
            "average": self._average and self._of_all_peers(self._average),
            "rng": torch.get_rng_state(),
            "rng_cuda": torch.cuda.get_rng_state(gpu) if (gpu := self._gpu()) else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned.

        A state of a GPU continues on any GPU. On a CPU the random numbers of the GPU are left out.
        """
        self.method.load_state_dict(self._of_this_process(state["method"], self.method))
        for name, optimizer in self.optimizers.items():
            of_weights = state["optimizers"][name]
            if self.placement is not None:
                of_weights = self.placement.local_optimizer(optimizer, of_weights)
            load_state(optimizer, of_weights)
        self.epoch, self.step = state["epoch"], state["step"]
        device = device_of(self.method)  # checkpoints are read on the CPU
        self.terms = {name: list(values.to(device)) for name, values in state["terms"].items()}
        self.history = list(state["history"])
        self.images, self.seconds = state["images"], state["seconds"]
        self.updates.load_state_dict(state["scales"], self.optimizers)
        if self._average is not None:
            average = self._of_this_process(state["average"], self._average)
            self._average.load_state_dict(average)
        self._checked, self._shares = self.step, []
        torch.set_rng_state(state["rng"])
        if state["rng_cuda"] is not None and (gpu := self._gpu()):
            torch.cuda.set_rng_state(state["rng_cuda"], gpu)

    def _common(self, named: Iterable[tuple[str, Tensor]]) -> list[Tensor]:
        """Of weights or buffers those that every process has."""
        placement = self.placement
        return [x for name, x in named if placement is None or not placement.is_of_peer(name)]

    def _of_all_peers(self, module: nn.Module) -> dict[str, Any]:
        return self.placement.gathered(module) if self.placement else module.state_dict()

    def _of_all_weights(self, optimizer: Optimizer) -> dict[str, Any]:
        placement = self.placement
        return placement.gathered_optimizer(optimizer) if placement else optimizer.state_dict()

    def _of_this_process(self, tensors: Mapping[str, Any], module: nn.Module) -> Mapping[str, Any]:
        if self.placement is None:
            return tensors
        return {name: tensors[name] for name in module.state_dict() if name in tensors}

    def _gpu(self) -> torch.device | None:
        """The GPU of the method, or None on another device."""
        device = device_of(self.method)
        return device if device.type == "cuda" else None

    def _groups(self) -> Iterator[dict[str, Any]]:
        return (group for o in self.optimizers.values() for group in o.param_groups)


def _moving_statistics(method: Method) -> Iterator[Tensor]:
    """The means and variances that batch normalisation in training mode will move."""
    for module in method.modules():
        if isinstance(module, _BatchNorm) and module.training:
            # As `data`: a later backward pass of the step may hold them, and does not read them.
            buffers = (module.running_mean, module.running_var)
            yield from (buffer.data for buffer in buffers if buffer is not None)


def _called(name: str) -> str:
    return f"{'measurement' if name.startswith(MEASURE) else 'loss term'} {name!r}"


def _paper_sgd(params: Any) -> Optimizer:
    return sgd(params, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
