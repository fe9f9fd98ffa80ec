"""Formulas of the papers in plain tensor arithmetic, with no helper of the library."""

import math

import torch

B, C = 6, 4


def log_softmax(z):
    z = z - z.detach().amax(dim=-1, keepdim=True)
    return z - z.exp().sum(dim=-1, keepdim=True).log()


def cross_entropy(z, labels):
    return -sum(log_softmax(z)[i, label] for i, label in enumerate(labels)) / len(labels)


def kl(student, teacher, T):
    """T^2 KL(teacher || student), mean over images."""
    return kl_of_probabilities(student, log_softmax(teacher / T).exp(), T)


def kl_of_probabilities(student, p, T):
    """The same where the teacher is given by its softened probabilities."""
    return T * T * (p * (p.log() - log_softmax(student / T))).sum() / len(student)


def ramp(epoch, R):
    return math.exp(-5 * (1 - min(epoch, R) / R) ** 2)


def example(K, seed=0, B=B, C=C):
    """Logits of K peers, with gradients, and labels."""
    rng = torch.Generator().manual_seed(seed)
    z = 2 * torch.randn(K, B, C, generator=rng, dtype=torch.float64)
    return z.requires_grad_(), torch.randint(C, (B,), generator=rng)


def images(B=B, size=8, views=1, seed=0):
    """Views in float64, and labels."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(views, B, 3, size, size, generator=rng, dtype=torch.float64)
    return list(x), torch.randint(C, (B,), generator=rng)


def assert_equal_losses(got, expected, wrt):
    """The same terms, with the same values and gradients, each within 1e-9."""
    assert got.keys() == expected.keys()
    for name in expected:
        assert abs(got[name] - expected[name]) < 1e-9, name
        pair = [gradients(loss[name], wrt) for loss in (got, expected)]
        for i, (g, e) in enumerate(zip(*pair, strict=True)):
            assert (g - e).abs().max() < 1e-9, (name, i)


def gradients(loss, wrt):
    """The gradients of a loss, zeros where it has none."""
    if not loss.requires_grad:
        return [torch.zeros_like(w) for w in wrt]
    found = torch.autograd.grad(loss, wrt, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(w) if g is None else g for w, g in zip(wrt, found, strict=True)]


def batch_norm(x, bn):
    """Of a batch, by a module's gain and bias only; x is (B, D) or (B, D, H, W)."""
    dims = [0, *range(2, x.ndim)]
    shape = [1, -1, *[1] * (x.ndim - 2)]
    mean = x.mean(dims, keepdim=True)
    variance = ((x - mean) ** 2).mean(dims, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * bn.weight.view(shape) + bn.bias.view(shape)
