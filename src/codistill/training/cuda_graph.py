"""Training steps that are recorded once an epoch and then replayed: CUDA graphs.

A step of small networks is some hundred small kernels, and a GPU waits for the host to launch each
of them. A recording of forward pass, losses, backward pass and optimizers is launched in one call.
PyTorch's notes: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.

The recording freezes Python numbers, such as a learning rate or the weight of a loss. Here they
change from epoch to epoch only, so every epoch makes a recording of its own. It does so even where
the learning rates of two epochs are equal: a method is told the epoch and may compute anything from
it, which nobody but the method knows. Five steps of an epoch of 390 would be saved.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.optim import Optimizer

from codistill.data.batch import Batch
from codistill.errors import InputError, reason

_FIRST = 3  # steps of an epoch before the recording: they choose kernels and set optimizers up

Step = Callable[[Batch], dict[str, Tensor]]


@runtime_checkable
class Recording(Protocol):
    """A device's means to record its work."""

    def warm_up(self, step: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Takes a step where the recording will be made."""

    def record(self, step: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Records a step without executing it. Returns the tensors that will hold its results."""

    def replay(self) -> None:
        """Executes the recorded step."""


class CudaGraph:
    """The `Recording` of a CUDA device.

    Args:
        device: the device that the step computes on; it need not be PyTorch's current device,
            whose streams would record nothing of it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = _side_stream(device)
        with torch.cuda.device(device):
            self._graph = torch.cuda.CUDAGraph()

    def warm_up(self, step: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            losses = step()
        current.wait_stream(self._stream)
        return losses

    def record(self, step: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        # Other threads go on meanwhile: that of a DataLoader asks CUDA for pinned memory, which a
        # recording forbids to all threads by default.
        mode = "thread_local"
        with (
            torch.cuda.device(self._device),
            torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode=mode),
        ):
            return step()

    def replay(self) -> None:
        self._graph.replay()


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One stream for the recordings of all epochs: cuBLAS keeps memory for every stream."""
    return torch.cuda.Stream(device)


class RecordedStep:
    """The training steps of one epoch: three are executed as usual, the fourth is recorded.

    A batch of another size, such as the last one of an epoch, is not replayed either.

    Args:
        step: the function that updates the weights with a batch and returns the losses.
        optimizers: the optimizers that it steps.
        recording: the device's recording.
    """

    def __init__(self, step: Step, optimizers: Iterable[Optimizer], recording: Recording):
        self._step = step
        self._optimizers = list(optimizers)
        self._recording = recording
        self._taken = 0
        self._batch: Batch | None = None
        self._losses: dict[str, Tensor] = {}

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Takes a step and returns its losses, which no later step overwrites."""
        if self._taken < _FIRST:
            self._taken += 1
            return self._recording.warm_up(lambda: self._step(batch))
        if self._batch is None:
            views = [view.clone() for view in batch.views]
            self._batch = batch.with_tensors(views, batch.labels.clone())
            self._losses = self._record(self._batch)
        elif _form(batch) != _form(self._batch):
            return self._step(batch)
        for to, new in zip(_tensors(self._batch), _tensors(batch), strict=True):
            to.copy_(new, non_blocking=True)
        self._recording.replay()
        return {name: loss.clone() for name, loss in self._losses.items()}

    def _record(self, batch: Batch) -> dict[str, Tensor]:
        try:
            with _capturable(self._optimizers):
                losses = self._recording.record(lambda: self._step(batch))
        except (RuntimeError, AssertionError) as error:
            first = error.__context__ or error  # what made the end of the recording fail
            raise InputError(
                f"a training step cannot be recorded as a CUDA graph ({reason(first)}): train "
                "without cuda_graphs"
            ) from error
        return {name: loss.detach() for name, loss in losses.items()}


@contextmanager
def _capturable(optimizers: Iterable[Optimizer]) -> Iterator[None]:
    """Sets Adam's `capturable` for a recording, without which it warns."""
    groups = [g for o in optimizers for g in o.param_groups if "capturable" in g]
    before = [group["capturable"] for group in groups]
    for group in groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group, was in zip(groups, before, strict=True):
            group["capturable"] = was


def _tensors(batch: Batch) -> list[Tensor]:
    return [*batch.views, batch.labels]


def _form(batch: Batch) -> tuple[int, list[tuple[torch.Size, torch.dtype]]]:
    return batch.images, [(tensor.shape, tensor.dtype) for tensor in _tensors(batch)]
