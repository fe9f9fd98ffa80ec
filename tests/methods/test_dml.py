"""DML against the paper, written out peer by peer in float64."""

import pytest
import torch
from toys import make, tiny

from codistill import InputError, Outputs, Peers
from codistill.methods.papers.dml import DML

B, C = 6, 4


def kl(student, teacher, T):
    """Sums over images and classes one by one."""
    total = 0.0
    for z_s, z_t in zip(student, teacher, strict=True):
        p, q = (z_t / T).exp() / (z_t / T).exp().sum(), (z_s / T).exp() / (z_s / T).exp().sum()
        total = total + sum(p[c] * (p[c].log() - q[c].log()) for c in range(len(p)))
    return T * T * total / len(student)


def cross_entropy(z, labels):
    p = z.exp() / z.exp().sum(dim=1, keepdim=True)
    return -sum(p[i, label].log() for i, label in enumerate(labels)) / len(labels)


def example(K):
    rng = torch.Generator().manual_seed(K)
    z = 2 * torch.randn(K, B, C, generator=rng, dtype=torch.float64)
    return z.requires_grad_(), torch.randint(C, (B,), generator=rng)


def expected_losses(z, labels, T):
    K = len(z)
    pairs = [(k, j) for k in range(K) for j in range(K) if j != k]
    return {
        "ce": sum(cross_entropy(z_k, labels) for z_k in z),
        "kd": sum(kl(z[k], z[j].detach(), T) for k, j in pairs) / (K - 1),
    }


def test_standardised_logits_go_into_the_formula():
    """Each row minus its mean, over its unbiased deviation plus 1e-7."""
    z, labels = example(3)
    centred = z - z.sum(dim=2, keepdim=True) / C
    deviation = (centred.square().sum(dim=2, keepdim=True) / (C - 1)).sqrt()
    rows = centred / (deviation + 1e-7)
    got = make("dml", temperature=2.0, standardise=True).losses(Outputs(z, []), labels, 0)
    expected = expected_losses(rows, labels, 2.0)["kd"]
    assert abs(got["kd"] - expected) < 1e-9
    (g,), (e,) = (torch.autograd.grad(loss, z, retain_graph=True) for loss in (got["kd"], expected))
    assert (g - e).abs().max() < 1e-9


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("T", [1.0, 3.0])
@pytest.mark.parametrize("term", ["ce", "kd"])
def test_every_loss_and_gradient_is_that_of_the_paper(term, K, T):
    z, labels = example(K)
    expected = expected_losses(z, labels, T)[term]
    method = make("dml", K=K, temperature=T)
    got = method.losses(Outputs(z, [], {"ensemble": z.mean(dim=0)}), labels, 0)[term]
    assert abs(got - expected) < 1e-9
    (expected_gradient,) = torch.autograd.grad(expected, z)
    (gradient,) = torch.autograd.grad(got, z)
    assert (gradient - expected_gradient).abs().max() < 1e-9


def test_there_are_two_terms():
    z, labels = example(2)
    assert make("dml", K=2).losses(Outputs(z, []), labels, 0).keys() == {"ce", "kd"}


def test_the_temperature_is_3_unless_given():
    z, labels = example(2)
    losses = make("dml", K=2).losses(Outputs(z, []), labels, 0)
    assert abs(losses["kd"] - expected_losses(z, labels, 3.0)["kd"]) < 1e-9


def test_distillation_has_its_full_weight_in_every_epoch():
    z, labels = example(2)
    method = make("dml", K=2)
    assert method.losses(Outputs(z, []), labels, 0) == method.losses(Outputs(z, []), labels, 200)


def test_one_peer_is_refused():
    with pytest.raises(InputError, match="DML .* needs at least 2 peers, not 1"):
        DML(Peers([tiny()]))


def test_a_temperature_of_0_is_refused():
    with pytest.raises(InputError, match="temperature is 0"):
        make("dml", temperature=0.0)
