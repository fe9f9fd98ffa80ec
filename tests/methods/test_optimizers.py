"""The optimizers do what PyTorch's do, and a checkpoint goes to another device."""

import copy
import functools

import pytest
import torch
from toys import assert_same_tensors, make, toy_batches

from codistill import TrainingState
from codistill.methods.optimizers import adam, load_state, sgd

options = {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def trained(make_optimizer, name="ffl", device="cpu", dtype=torch.float32):
    """A method after five steps, and its training."""
    method = make(name).to(device, dtype, memory_format=torch.channels_last).train()
    training = TrainingState(method, make_optimizer)
    for batch in toy_batches(n=5):
        views = [view.to(device, dtype) for view in batch.views]
        batch = batch._replace(views=views, labels=batch.labels.to(device))
        training.record(method.training_step(batch, training.optimizers, 3))
    return training


def test_on_the_cpu_they_give_the_bits_of_pytorchs_own():
    theirs = trained(functools.partial(torch.optim.SGD, **options, foreach=False))
    ours = trained(functools.partial(sgd, **options))
    assert_same_tensors(ours.method.state_dict(), theirs.method.state_dict())


def test_on_the_cpu_weights_and_gradients_may_lie_differently_in_memory():
    results = []
    for optimizer in (torch.optim.SGD, sgd, torch.optim.Adam, adam):
        torch.manual_seed(0)
        x = torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last).requires_grad_()
        x.grad = torch.randn(4, 3, 2, 2)
        optimizer([x], lr=0.1).step()
        results.append(x.detach())
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[2], results[3])


@needs_cuda
def test_on_a_gpu_they_are_one_kernel_and_agree_with_pytorchs_own():
    theirs = trained(functools.partial(torch.optim.SGD, **options), "afd", "cuda", torch.float64)
    ours = trained(functools.partial(sgd, **options), "afd", "cuda", torch.float64)
    assert all(g["fused"] for o in ours.optimizers.values() for g in o.param_groups)
    for name, value in ours.method.state_dict().items():
        torch.testing.assert_close(value, theirs.method.state_dict()[name])


@pytest.mark.parametrize("name", ["ffl", "afd"])
def test_a_state_that_another_device_saved_is_computed_the_way_of_this_one(name):
    training = trained(functools.partial(sgd, **options), name)
    state = copy.deepcopy(training.state_dict())
    for saved in state["optimizers"].values():
        for group in saved["param_groups"]:
            group |= {"fused": True, "foreach": False, "lr": 0.125}
    for key, optimizer in training.optimizers.items():
        ways = [(group["fused"], group["foreach"]) for group in optimizer.param_groups]
        load_state(optimizer, state["optimizers"][key])
        assert [(group["fused"], group["foreach"]) for group in optimizer.param_groups] == ways
        assert {group["lr"] for group in optimizer.param_groups} == {0.125}
