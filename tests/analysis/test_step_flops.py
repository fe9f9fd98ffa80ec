"""FLOPs of a training step, against a count by hand."""

import copy

import pytest
import torch
from toys import C, make, taught

from codistill.analysis.cost import training_flops
from codistill.analysis.cost.training_flops import step_flops
from codistill.methods.flops import count_flops
from codistill.names import METHODS
from codistill.training.updates import UpdateOptions

SIZE = 16


def of_an_image(method, options=None) -> float:
    return step_flops(method, (SIZE, SIZE), 32, 10_000, options=options) / 32


def forward() -> tuple[int, int]:
    """FLOPs of the first convolution of a tiny network, and of the whole network."""
    first = 2 * 9 * 3 * 4 * SIZE**2
    second = 2 * 9 * 4 * 8 * (SIZE // 2) ** 2
    third = 2 * 9 * 8 * 16 * (SIZE // 4) ** 2
    return first, first + second + third + 2 * 16 * C


def test_a_network_alone_costs_three_times_its_forward_pass_but_for_the_images() -> None:
    first, all_of_it = forward()
    method = make("independent", shared=0, K=2)
    assert of_an_image(method) == 2 * (3 * all_of_it - first)


def test_a_teacher_costs_its_forward_pass() -> None:
    first, all_of_it = forward()
    method = make("kd", shared=0, K=1, teacher=taught())
    assert of_an_image(method) == 4 * all_of_it - first


def test_a_frozen_stage_costs_no_backward_pass() -> None:
    first, all_of_it = forward()
    method = make("independent", shared=0, K=1)
    third_and_head = all_of_it - first - 2 * 9 * 4 * 8 * (SIZE // 2) ** 2
    third = third_and_head - 2 * 16 * C
    frozen = of_an_image(method, UpdateOptions(freeze=2))
    assert frozen == all_of_it + 2 * third_and_head - third  # the third has no input to teach
    for_an_epoch = UpdateOptions(freeze=2, freeze_epochs=1)
    assert of_an_image(method, for_an_epoch) == of_an_image(method)


def test_a_batch_costs_what_its_terms_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """MCL compares each pair of images; OKDMDE multiplies two matrices of weights once a step."""
    for name in ("mcl", "okdmde", "independent"):
        method = make(name, shared=0, K=3)
        found = step_flops(method, (SIZE, SIZE), 20, 10_000)
        with monkeypatch.context() as patch:
            patch.setattr(training_flops, "_COUNTED", (20,))
            assert step_flops(method, (SIZE, SIZE), 20, 10_000) == found
    per_image = [step_flops(make("mcl", shared=0, K=3), (SIZE, SIZE), n, 9) / n for n in (2, 20)]
    assert per_image[1] > per_image[0]


def test_attention_is_counted() -> None:
    query = torch.randn(1, 2, 5, 8)  # two heads, five tokens
    attend = torch.nn.functional.scaled_dot_product_attention
    assert count_flops(attend, query, query, query)[1] == 2 * (2 * 2 * 5 * 5 * 8)


@pytest.mark.parametrize("name", METHODS)
def test_the_method_stays_as_it_was(name: str) -> None:
    method = make(name, shared=2 if name == "one" else 0)
    before, random = copy.deepcopy(method.state_dict()), torch.get_rng_state()
    with torch.inference_mode():
        alone = 2 * forward()[1]
        assert of_an_image(method) > alone
    torch.testing.assert_close(method.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in method.parameters())
