"""Training steps that are recorded once an epoch and then replayed: CUDA graphs.

A step of small networks is some hundred small kernels, and a GPU waits for the host to ask for each
of them. A recording is asked for in one call, with forward pass, losses, backward pass, optimizers.
PyTorch's notes: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.

Whatever is a Python number in a step, such as a learning rate or the weight of a loss, is frozen in
the recording. All of them belong to an epoch here, so every epoch makes its own.
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

_FIRST = 3  # steps of an epoch taken as ever: kernels are chosen, optimizers get their state

Step = Callable[[Batch], dict[str, Tensor]]


@runtime_checkable
class Recording(Protocol):
    """What a device offers to record its work."""

    def warm_up(self, step: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Takes a step where the recording will be made."""

    def record(self, step: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Notes what a step does, without doing it. Returns where its results will be."""

    def replay(self) -> None:
        """Does what was noted."""


class CudaGraph:
    """The `Recording` of a CUDA device.

    Args:
        device: that the step computes on. It need not be PyTorch's current one, whose streams would
            record nothing of it.
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
        # recording forbids to all threads unless told otherwise.
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
    """One for the recordings of all epochs: cuBLAS keeps memory for every stream it has seen."""
    return torch.cuda.Stream(device)


class RecordedStep:
    """The training steps of one epoch. The first three are taken as ever, the fourth is recorded.

    A batch of another size, as the last one of an epoch may be, is taken as ever too.

    Args:
        step: updates the weights with a batch and returns the losses.
        optimizers: what it steps.
        recording: of the device.
    """

    def __init__(self, step: Step, optimizers: Iterable[Optimizer], recording: Recording):
        self._step = step
        self._optimizers = list(optimizers)
        self._recording = recording
        self._taken = 0
        self._batch: Batch | None = None
        self._losses: dict[str, Tensor] = {}

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Takes a step; the losses are the caller's to keep."""
        if self._taken < _FIRST:
            self._taken += 1
            return self._recording.warm_up(lambda: self._step(batch))
        if self._batch is None:
            self._batch = Batch([view.clone() for view in batch.views], batch.labels.clone())
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
    """Adam wants to be told that it is recorded, and warns where it is not."""
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


def _form(batch: Batch) -> list[tuple[torch.Size, torch.dtype]]:
    return [(tensor.shape, tensor.dtype) for tensor in _tensors(batch)]
