"""The pretended GPU computes what the CPU does, and refuses what a GPU would."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from pretended_gpu import GPU, DeviceError, PretendedGpu
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CPU = torch.device("cpu")


@pytest.fixture
def gpu() -> Iterator[PretendedGpu]:
    with PretendedGpu() as gpu:
        yield gpu


def by_hook(x: Tensor) -> None:
    """A backward pass in which a hook multiplies by a tensor of the CPU."""
    y = x.clone().requires_grad_()
    y.register_hook(lambda gradient: gradient * torch.ones(3))
    y.sum().backward()


def recomputed(x: Tensor) -> None:
    """A layer that mixes devices when it is computed for the second time."""
    calls: list[Tensor] = []

    def layer(y: Tensor) -> Tensor:
        calls.append(y)
        return y * (torch.ones(3) if len(calls) > 1 else torch.ones(3, device=y.device))

    checkpoint(layer, x.clone().requires_grad_(), use_reentrant=False).sum().backward()


@pytest.mark.parametrize(
    "mixes",
    [
        lambda x: x + torch.ones(3),
        lambda x: torch.stack([x, torch.ones(3)]),
        lambda x: x @ torch.eye(3),
        lambda x: torch.ones(3).add_(x),
        lambda x: torch.zeros(()).add_(x.sum()),
        lambda x: torch.ones(3)[x.long()],
        lambda x: x.gather(0, torch.arange(3)),
        lambda x: nn.Linear(3, 2)(x),
        lambda x: nn.functional.cross_entropy(x[None], torch.tensor([1])),
        lambda x: torch.where(x > 0, x, torch.arange(3)),
        lambda x: x.numpy(),
        lambda x: np.asarray(x),
        lambda x: torch.randn(3, device="cuda", generator=torch.Generator()),
        lambda x: torch.linalg.solve(torch.eye(3), x),
        by_hook,
        recomputed,
    ],
)
def test_what_mixes_devices_is_refused(mixes: Callable[[Tensor], Any], gpu: PretendedGpu) -> None:
    with pytest.raises(DeviceError):
        mixes(torch.ones(3, device="cuda"))


def test_what_a_gpu_takes_is_left_alone(gpu: PretendedGpu) -> None:
    x = torch.ones(3, device="cuda", requires_grad=True)
    assert x.device == GPU
    assert x.is_cuda
    for y in (x[torch.arange(2)], x + torch.tensor(1.0), 2 * x, torch.zeros_like(x), x.clone()):
        assert y.device == GPU
    assert torch.zeros(3).copy_(x.detach()).device == CPU
    x.sum().backward()
    assert x.grad is not None
    assert x.grad.device == GPU


def test_a_move_is_a_copy_there_and_back(gpu: PretendedGpu) -> None:
    x = torch.arange(3.0)
    for move in (Tensor.cuda, lambda x: x.to("cuda"), lambda x: x.to(GPU, torch.float64)):
        there = move(x)
        assert there.device == GPU
        assert there.tolist() == x.tolist()
        assert there.data_ptr() != x.data_ptr()
        assert there.to(there.device) is there
        back = there.cpu()
        assert (back.device, back.numpy().tolist()) == (CPU, [0, 1, 2])
    assert x.device == CPU


def test_a_module_moves_with_its_gradients_and_copies_stay_where_it_is(gpu: PretendedGpu) -> None:
    layer = nn.Linear(3, 2)
    layer(torch.ones(1, 3)).sum().backward()
    layer.to("cuda")
    assert {p.device for p in copy.deepcopy(layer).parameters()} == {GPU}
    assert layer.weight.grad is not None
    assert layer.weight.grad.device == GPU
    layer.cpu()
    assert {p.device for p in layer.parameters()} == {CPU}


def test_what_was_there_is_there_in_the_next_block() -> None:
    with PretendedGpu():
        kept = torch.ones(3, device="cuda")
    assert kept.device == CPU
    with PretendedGpu():
        assert kept.device == GPU


def test_pytorch_is_left_as_it_was() -> None:
    before = torch.autocast, torch.cuda.synchronize, torch.autograd._engine_run_backward
    with PretendedGpu():
        assert torch.autocast is not before[0]
    assert (torch.autocast, torch.cuda.synchronize, torch.autograd._engine_run_backward) == before
