"""FLOPs of a training step, against a count by hand."""

import copy

import pytest
import torch
from toys import C, make, taught

from codistill.analysis.cost.training import step_flops
from codistill.names import METHODS

SIZE = 16


def forward() -> tuple[int, int]:
    """FLOPs of the first convolution of a tiny network, and of the whole network."""
    first = 2 * 9 * 3 * 4 * SIZE**2
    second = 2 * 9 * 4 * 8 * (SIZE // 2) ** 2
    third = 2 * 9 * 8 * 16 * (SIZE // 4) ** 2
    return first, first + second + third + 2 * 16 * C


def test_a_network_alone_costs_three_times_its_forward_pass_but_for_the_images() -> None:
    first, all_of_it = forward()
    method = make("independent", shared=0, K=2)
    assert step_flops(method, (SIZE, SIZE)) == 2 * (3 * all_of_it - first)


def test_a_teacher_costs_its_forward_pass() -> None:
    first, all_of_it = forward()
    method = make("kd", shared=0, K=1, teacher=taught())
    assert step_flops(method, (SIZE, SIZE)) == 4 * all_of_it - first


def test_a_frozen_stage_costs_no_backward_pass() -> None:
    first, all_of_it = forward()
    method = make("independent", shared=0, K=1)
    method.peers.requires_grad_(False)
    method.peers.heads.requires_grad_(True)
    assert step_flops(method, (SIZE, SIZE)) == all_of_it + 2 * 16 * C


@pytest.mark.parametrize("name", METHODS)
def test_the_method_stays_as_it_was(name: str) -> None:
    method = make(name, shared=2 if name == "one" else 0)
    before, random = copy.deepcopy(method.state_dict()), torch.get_rng_state()
    with torch.inference_mode():
        alone = 2 * forward()[1]
        assert step_flops(method, (SIZE, SIZE)) > alone
    torch.testing.assert_close(method.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in method.parameters())
