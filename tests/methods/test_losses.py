"""The loss terms against numbers worked out by hand."""

import math

import pytest
import torch
from torch import tensor

from codistill.methods.losses import (
    as_distributions,
    ce_loss,
    kd_loss,
    sigmoid_ramp_up,
    standardised,
)


def logits_of(*rows, T=1.0):
    """Logits whose softmax at temperature T is the given rows, moved by a constant."""
    return T * tensor(rows, dtype=torch.float64).log() + 3.0


def test_kd_is_t_squared_kl_from_the_teacher():
    teacher, student = logits_of([0.75, 0.25], T=2.0), logits_of([0.5, 0.5], T=2.0)
    expected = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert kd_loss(student, teacher, 2.0).item() == pytest.approx(expected, abs=1e-12)


def test_kd_is_the_mean_over_the_batch():
    teacher = logits_of([0.75, 0.25], [0.5, 0.5])
    student = logits_of([0.5, 0.5], [0.5, 0.5])
    expected = (0.75 * math.log(1.5) + 0.25 * math.log(0.5)) / 2
    assert kd_loss(student, teacher, 1.0).item() == pytest.approx(expected, abs=1e-12)


def test_kd_is_the_sum_over_students():
    teacher = logits_of([0.75, 0.25])
    students = torch.stack([logits_of([0.5, 0.5]), logits_of([0.5, 0.5]), teacher])
    expected = 2 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert kd_loss(students, teacher, 1.0).item() == pytest.approx(expected, abs=1e-12)


def test_kd_of_equal_logits_is_zero():
    z = torch.randn(3, 5, 4)
    assert kd_loss(z, z, 3.0).item() == 0.0


def test_kd_sends_gradients_to_both_sides():
    student, teacher = torch.randn(2, 5, 4).requires_grad_().unbind()
    gradients = torch.autograd.grad(kd_loss(student, teacher, 3.0), [student, teacher])
    assert all(g.abs().max() > 0 for g in gradients)


def test_gradients_are_finite_for_extreme_logits_at_a_low_temperature():
    student = tensor([[300.0, -300.0, 0.0], [0.0, 0.0, 300.0]], requires_grad=True)
    teacher = tensor([[-300.0, 300.0, 0.0], [300.0, 0.0, -300.0]], requires_grad=True)
    loss = kd_loss(student, teacher, 0.1)
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()
    assert teacher.grad.isfinite().all()


def test_standardised_kd_is_kd_of_rows_minus_their_mean_over_their_deviation():
    """By hand: the unbiased deviation of (1, 2, 6) is sqrt(7), that of (0, 0, 3) is sqrt(3)."""
    student = tensor([[1.0, 2.0, 6.0]], dtype=torch.float64, requires_grad=True)
    teacher = tensor([[0.0, 0.0, 3.0]], dtype=torch.float64, requires_grad=True)
    by_hand = [(student - 3) / (7**0.5 + 1e-7), (teacher - 1) / (3**0.5 + 1e-7)]
    got, expected = kd_loss(student, teacher, 2.0, standardise=True), kd_loss(*by_hand, 2.0)
    assert got.item() == pytest.approx(expected.item(), abs=1e-12)
    assert got.item() != pytest.approx(kd_loss(student, teacher, 2.0).item(), abs=1e-3)


def test_gradients_go_through_mean_and_deviation_of_standardised_logits():
    rng = torch.Generator().manual_seed(0)
    z = torch.randn(2, 5, 4, generator=rng, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: kd_loss(z[0], z[1], 2.0, True), z)


def test_standardised_kd_takes_no_notice_of_size_and_level():
    student, teacher = torch.randn(2, 3, 5, 4, dtype=torch.float64).unbind()
    loss = kd_loss(student, teacher, 2.0, standardise=True)
    moved = kd_loss(student, 9 * teacher + torch.randn(3, 5, 1), 2.0, standardise=True)
    assert moved.item() == pytest.approx(loss.item(), abs=1e-6)


def test_a_row_without_deviation_has_finite_gradients():
    z = torch.zeros(2, 5, 4, requires_grad=True)
    loss = kd_loss(z[0], z[1] + torch.arange(4), 2.0, standardise=True)
    loss.backward()
    assert loss.isfinite()
    assert z.grad.isfinite().all()
    assert torch.equal(standardised(z[0]), z[0])


def test_distributions_of_indices_are_one_hot_and_weighed_rows_sum_to_1():
    z = torch.zeros(2, 3, dtype=torch.float64)
    assert as_distributions(tensor([2, 0]), z).tolist() == [[0, 0, 1], [1, 0, 0]]
    rows = as_distributions(tensor([[0.0, 3.0, 1.0], [0.0, 0.0, 0.5]]), z)
    assert rows.tolist() == [[0, 0.75, 0.25], [0, 0, 1]]


def test_ce_is_minus_the_log_of_the_labels_probability():
    z = logits_of([0.75, 0.25], [0.5, 0.5])
    expected = -(math.log(0.25) + math.log(0.5)) / 2
    assert ce_loss(z, tensor([1, 0])).item() == pytest.approx(expected, abs=1e-12)


def test_ce_is_the_sum_over_leading_axes():
    z = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    labels = tensor([0, 1, 2, 3, 0])
    expected = sum(ce_loss(z[i, j], labels) for i in range(2) for j in range(3))
    torch.testing.assert_close(ce_loss(z, labels), expected, rtol=0, atol=1e-12)


def kd_of(z):
    return kd_loss(z[0], z[1], 3.0)


def ce_of(z):
    return ce_loss(z, tensor([0, 1, 2, 3, 0]))


def standardised_kd_of(z):
    return kd_loss(z[0], z[1], 2.0, standardise=True)


every_loss = pytest.mark.parametrize("loss", [kd_of, ce_of, standardised_kd_of])


@every_loss
def test_float64_stays_float64(loss):
    assert loss(torch.randn(2, 5, 4, dtype=torch.float64)).dtype == torch.float64


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(loss, dtype):
    z = torch.randn(2, 5, 4).to(dtype)
    assert loss(z).dtype == torch.float32
    assert torch.equal(loss(z), loss(z.float()))


@every_loss
def test_autocast_changes_no_loss(loss):
    z = torch.randn(2, 5, 4)
    expected = loss(z)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(z), expected)


@pytest.mark.parametrize(
    ("epoch", "weight"),
    [(0, math.exp(-5)), (20, math.exp(-5 * 0.75**2)), (40, math.exp(-1.25)), (80, 1), (81, 1)],
)
def test_the_ramp_goes_up_to_1(epoch, weight):
    assert sigmoid_ramp_up(epoch, 80) == pytest.approx(weight, abs=1e-15)


def test_a_ramp_without_length_is_1():
    assert sigmoid_ramp_up(0, 0) == 1.0
