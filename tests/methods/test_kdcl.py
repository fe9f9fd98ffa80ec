"""KDCL's four ensembles against the formulas, written out in float64."""

import pytest
import torch
from scipy.optimize import minimize as scipy_minimize
from toys import make, sgd, toy_batches
from written_out import C, assert_equal_losses, cross_entropy, example, images, kl, log_softmax

from codistill import InputError, fit
from codistill.methods.papers.kdcl import error_correlation, general_weights, linear_weights
from codistill.networks.peers import Outputs


def naive(z, labels):
    """For each image, the logits of the peer whose cross-entropy is lowest."""
    rows = []
    for i, label in enumerate(labels):
        errors = [-log_softmax(z_k[i])[label].item() for z_k in z]
        rows.append(z[errors.index(min(errors))][i])
    return torch.stack(rows)


def minlogit(z, labels):
    rows = []
    for i, label in enumerate(labels):
        rows.append(torch.stack([min(z_k[i, c] - z_k[i, label] for z_k in z) for c in range(C)]))
    return torch.stack(rows)


TEACHERS = {"naive": naive, "minlogit": minlogit}


def expected_losses(z, teacher, labels, T=2.0, weight=1.0):
    kd = weight * sum(kl(z_k, teacher.detach(), T) for z_k in z)
    return {"ce": sum(cross_entropy(z_k, labels) for z_k in z), "kd": kd}


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("target", TEACHERS)
def test_every_loss_and_gradient_is_that_of_the_formula(target, K):
    z, labels = example(K)
    teacher = TEACHERS[target](z, labels)
    losses = make("kdcl", K=K, target=target).losses(Outputs(z, []), labels, 0)
    assert_equal_losses(losses, expected_losses(z, teacher, labels), [z])


def test_minlogit_is_the_default():
    z, labels = example(3)
    losses = make("kdcl").losses(Outputs(z, []), labels, 0)
    assert_equal_losses(losses, expected_losses(z, minlogit(z, labels), labels), [z])


def test_temperature_and_weight_go_into_the_formula():
    z, labels = example(3)
    method = make("kdcl", temperature=3.0, kd_weight=0.5, target="naive")
    expected = expected_losses(z, naive(z, labels), labels, T=3.0, weight=0.5)
    assert_equal_losses(method.losses(Outputs(z, []), labels, 0), expected, [z])


def convex_cross_entropy(weights, z, label):
    return -log_softmax(sum(w * z_k for w, z_k in zip(weights, z, strict=True)))[label].item()


@pytest.mark.parametrize("K", [2, 4])
def test_the_linear_ensemble_is_the_best_convex_one(K):
    """As good as what SciPy finds, within 1e-3 nats."""
    z, labels = example(K, B=20)
    weights = linear_weights(z.detach(), labels)
    assert weights.min() >= 0
    assert (weights.sum(dim=1) - 1).abs().max() < 1e-12
    for i, label in enumerate(labels):
        found = convex_cross_entropy(weights[i], z[:, i], label)
        best = scipy_minimize(
            lambda w, i=i, label=label: convex_cross_entropy(torch.tensor(w), z[:, i], label),
            [1 / K] * K,
            bounds=[(0, 1)] * K,
            constraints={"type": "eq", "fun": lambda w: sum(w) - 1},
        )
        assert found < best.fun + 1e-3


def test_the_linear_ensemble_teaches_and_is_held_fixed():
    z, labels = example(3)
    w = linear_weights(z.detach(), labels)
    teacher = sum(w[:, k, None] * z[k] for k in range(3))
    losses = make("kdcl", target="linear").losses(Outputs(z, []), labels, 0)
    assert_equal_losses(losses, expected_losses(z, teacher, labels), [z])


def test_equal_peers_are_weighed_equally_by_the_linear_ensemble():
    z, labels = example(1)
    assert linear_weights(z.detach().expand(3, -1, -1), labels).allclose(
        torch.tensor(1 / 3).double()
    )


# The general ensemble


def test_the_general_ensemble_weighs_by_its_buffer():
    z, labels = example(3)
    method = make("kdcl", target="general").double()
    method.weights.copy_(torch.tensor([0.7, -0.2, 0.5]))
    teacher = 0.7 * z[0] - 0.2 * z[1] + 0.5 * z[2]
    losses = method.losses(Outputs(z, []), labels, 0)
    expected = expected_losses(z, teacher, labels)
    assert abs(losses["kd"] - expected["kd"]) < 1e-6  # 0.7 in float32


def test_the_general_weights_minimise_the_error():
    A = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    correlation = A @ A.T + torch.eye(4)
    w = general_weights(correlation)
    assert abs(w.sum() - 1) < 1e-12
    inverse = correlation.inverse()
    assert (w - inverse.sum(dim=1) / inverse.sum()).abs().max() < 1e-5
    for _ in range(20):  # any other weights of sum 1 do worse
        other = w + (d := 0.1 * torch.randn(4, dtype=torch.float64)) - d.mean()
        assert other @ correlation @ other > w @ correlation @ w


def test_equal_peers_are_weighed_equally_by_the_general_ensemble():
    w = general_weights(torch.full((3, 3), 0.4))
    assert w.allclose(torch.tensor(1 / 3), atol=1e-3)


def test_the_error_correlation_is_that_of_the_formula():
    method = make("kdcl", target="general").double().train()
    before = {n: t.clone() for n, t in method.state_dict().items()}
    views, labels = images(B=12)
    held_out = [
        type(toy_batches(n=1)[0])([v[s]], labels[s])
        for v in views
        for s in (slice(0, 8), slice(8, 12))
    ]
    found = error_correlation(method, held_out)
    assert method.training
    assert all(torch.equal(t, before[n]) for n, t in method.state_dict().items())
    p = log_softmax(method.eval().peers(views).logits).exp()  # (K, B, C)
    expected = torch.zeros(3, 3, dtype=torch.float64)
    for i in range(3):
        for j in range(3):
            for b, label in enumerate(labels):
                y = torch.zeros(C, dtype=torch.float64)
                y[label] = 1
                expected[i, j] += ((p[i, b] - y) * (p[j, b] - y)).sum() / len(labels)
    assert (found - expected).abs().max() < 1e-9


def test_the_general_weights_are_measured_before_every_epoch():
    method = make("kdcl", target="general")
    held_out = toy_batches(n=1, seed=5)
    seen = []
    batches = toy_batches(3)
    expected = []

    def watched():
        expected.append(general_weights(error_correlation(method, held_out)))
        seen.append(method.weights.clone())
        yield from batches

    class Watched:
        def __iter__(self):
            return watched()

    fit(method, Watched(), epochs=2, held_out=held_out, make_optimizer=sgd)
    assert torch.equal(seen[0], expected[0])
    assert torch.equal(seen[1], expected[1])
    assert not torch.equal(seen[0], seen[1])


def test_the_general_ensemble_without_held_out_images_is_refused():
    method = make("kdcl", target="general")
    with pytest.raises(InputError, match=r"images that none of them trains on.*held_out"):
        fit(method, toy_batches(3), epochs=1, make_optimizer=sgd)


def test_held_out_images_that_are_used_up_are_refused():
    method = make("kdcl", target="general")
    with pytest.raises(InputError, match="not one held-out image.*a generator"):
        method.begin_epoch(1, iter([]))


@pytest.mark.parametrize("target", ["linear", "general"])
def test_the_ensemble_is_the_same_under_autocast(target):
    method = make("kdcl", K=3, target=target)
    z, labels = example(3, B=50)
    out = Outputs(z.detach().float(), [])
    with torch.autocast("cpu", torch.bfloat16):
        lowered = method.losses(out, labels, 0)
    assert torch.equal(lowered["kd"], method.losses(out, labels, 0)["kd"])


def test_the_others_need_no_held_out_images():
    method = make("kdcl", target="naive")
    assert fit(method, toy_batches(3), epochs=1, make_optimizer=sgd)[0]["epoch"] == 1


# What is asked for


def test_each_peer_sees_its_own_view():
    method = make("kdcl").double()
    assert method.views == 3
    views, _ = images(views=3)
    out = method(views)
    assert all(out.stages[k][0] is views[k] for k in range(3))


def test_one_peer_is_refused():
    with pytest.raises(InputError, match="at least 2 peers, not 1"):
        make("kdcl", K=1)
