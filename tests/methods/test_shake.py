"""SHAKE against the authors' code, written out in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toys import C, make, taught, tiny
from written_out import assert_equal_losses, batch_norm, cross_entropy, gradients, images, kl

from codistill import InputError, Network, Peers
from codistill.methods.papers.shake import SHAKE, Shadow


def layer(module, x, stride=1):
    """A convolution that keeps or divides the size, batch normalisation of the batch, ReLU."""
    conv, bn, _ = module
    x = F.conv2d(x, conv.weight, stride=stride, padding=conv.weight.shape[-1] // 2)
    return batch_norm(x, bn).clamp(min=0)


def teacher_and_shadow(method, view):
    """The logits of both: maps at 1, 1/2 and 1/4 of the image, and the teacher's own last layer."""
    teacher = taught().double().eval()
    with torch.no_grad():
        maps = [view := stage(view) for stage in teacher.stages]
        linear = teacher.head[-1]
        z_t = maps[-1].mean((2, 3)) @ linear.weight.T + linear.bias
    shadow, x = method.shadow, maps[0]
    for s in (1, 2):
        x = layer(shadow.down[s - 1], x, stride=2) + layer(shadow.side[s - 1], maps[s])
    x = layer(shadow.last, x)
    return z_t, x.mean((2, 3)) @ linear.weight.detach().T + linear.bias.detach()


def to_pi(z):
    """Mean 0, biased deviation pi."""
    z = z - z.sum(dim=-1, keepdim=True) / C
    return math.pi * z / (z.square().sum(dim=-1, keepdim=True) / C + 1e-7).sqrt()


def expected_losses(z, z_t, a, labels, T=4.0, gamma=1.0, alpha=0.0, beta=1.0):
    K = len(z)
    learnt = sum(kl(a, z_k.detach(), T) for z_k in z) / K + cross_entropy(a, labels)
    likeness = (a - z_t.detach()).square().sum() / a.numel()
    terms = {
        "ce": gamma * sum(cross_entropy(z_k, labels) for z_k in z),
        "kd": beta * sum(kl(z_k, a.detach(), T) for z_k in z),
        "shadow": beta * (learnt + likeness),
    }
    return terms | ({"teacher": alpha * sum(kl(z_k, z_t, T) for z_k in z)} if alpha else {})


def trained(method):
    return [p for p in method.parameters() if p.requires_grad]


@pytest.mark.parametrize("K", [1, 2])
@pytest.mark.parametrize("shared", [0, 2])
def test_every_loss_and_gradient_is_that_of_the_authors_code(K, shared):
    method = make("shake", shared, K).double()
    (view,), labels = images()
    z_t, a = teacher_and_shadow(method, view)
    out = method([view])
    assert (out.extra["teacher"] - z_t).abs().max() < 1e-12
    assert (out.extra["shadow"] - a).abs().max() < 1e-12
    expected = expected_losses(out.logits, z_t, a, labels)
    assert_equal_losses(method.losses(out, labels, 0), expected, trained(method))


def test_temperature_and_weights_go_into_the_formula():
    options = {"temperature": 2.0, "hard_weight": 0.3, "kd_weight": 0.7, "shadow_weight": 0.4}
    method = make("shake", **options).double()
    (view,), labels = images()
    out = method([view])
    z_t, a = teacher_and_shadow(method, view)
    expected = expected_losses(out.logits, z_t, a, labels, T=2.0, gamma=0.3, alpha=0.7, beta=0.4)
    assert_equal_losses(method.losses(out, labels, 0), expected, trained(method))


def test_normalised_every_loss_sees_rows_of_mean_0_and_deviation_pi():
    method = make("shake", normalise=True, kd_weight=1.0).double()
    (view,), labels = images()
    out = method([view])
    z_t, a = teacher_and_shadow(method, view)
    rows = to_pi(out.logits), to_pi(z_t), to_pi(a)
    expected = expected_losses(*rows, labels, alpha=1.0)
    assert_equal_losses(method.losses(out, labels, 0), expected, trained(method))


def test_students_and_shadow_hold_each_other_fixed():
    method = make("shake").double()
    views, labels = images()
    losses = method.losses(method(views), labels, 0)
    students, shadow = list(method.peers.parameters()), list(method.shadow.parameters())
    assert all(g.abs().max() == 0 for g in gradients(losses["kd"], shadow))
    assert all(g.abs().max() == 0 for g in gradients(losses["shadow"], students))
    assert all(g.abs().max() > 0 for g in gradients(losses["shadow"], shadow))


def test_the_teacher_is_in_eval_mode_and_is_not_trained():
    method = make("shake").double().train()
    before = {n: t.clone() for n, t in method.teacher.state_dict().items()}
    views, labels = images()
    sum(method.losses(method(views), labels, 0).values()).backward()
    assert not any(m.training for m in method.teacher.modules())
    assert all(p.grad is None for p in method.teacher.parameters())
    assert all(torch.equal(t, before[n]) for n, t in method.teacher.state_dict().items())


def test_the_students_are_kept():
    method = make("shake")
    assert method.students() == {f"peer{k}": (method.peers, k) for k in range(3)}


def test_a_shadow_fits_maps_that_divide_by_nothing_and_one_that_is_alone():
    shadow = Shadow([4, 6, 8], [1, 2, 6])
    sizes = [(4, 9), (6, 5), (8, 1)]
    assert shadow([torch.randn(2, d, n, n) for d, n in sizes]).shape == (2, 8, 1, 1)
    assert Shadow([4], [8])([torch.randn(2, 4, 3, 3)]).shape == (2, 4, 3, 3)


class ChannelsLast(nn.Conv2d):
    def forward(self, x):
        return super().forward(x).permute(0, 2, 3, 1)


class MeanOverPlaces(nn.Module):
    def forward(self, x):
        return x.mean(dim=(1, 2))


def test_a_shadow_of_a_teacher_whose_head_reads_no_maps_has_a_classifier_of_its_own():
    head = nn.Sequential(MeanOverPlaces(), nn.Linear(6, C))
    teacher = Network([ChannelsLast(3, 6, 3, padding=1)], [6], [1], C, head, ["NHWC"])
    method = SHAKE(Peers([tiny()]), teacher)
    (view,), labels = images()
    out = method([view.float()])
    sum(method.losses(out, labels, 0).values()).backward()
    assert method.classifier[-1].weight.grad.abs().max() > 0


def test_no_teacher_is_refused():
    with pytest.raises(InputError, match="SHAKE needs a teacher .* SHAKE\\(peers, teacher=network"):
        SHAKE(Peers([tiny()]))


def test_normalised_logits_of_two_classes_are_refused():
    with pytest.raises(InputError, match="3 classes or more"):
        SHAKE(Peers([tiny(2)]), tiny(2), normalise=True)
