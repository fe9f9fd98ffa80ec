"""OKDDip against the paper and the authors' code, written out in float64."""

import pytest
import torch
from toys import make, tiny
from written_out import (
    assert_equal_losses,
    cross_entropy,
    gradients,
    images,
    kl,
    kl_of_probabilities,
    log_softmax,
    ramp,
)

from codistill import InputError, Peers
from codistill.methods.papers.okddip import OKDDip


def expected_losses(method, out, labels, epoch, T=3.0, R=80, mix="logits"):
    """Targets are not held fixed: neither by the authors' code nor here."""
    L, E = method.attention.query.weight, method.attention.key.weight
    z, J = out.logits, len(out.logits) - 1
    h = [maps[-1].mean((2, 3)) for maps in out.stages]
    first = 0
    for a in range(J):
        scores = torch.stack([((h[a] @ L.T) * (h[b] @ E.T)).sum(1) for b in range(J)], dim=1)
        alpha = scores.exp() / scores.exp().sum(dim=1, keepdim=True)  # (B, J)
        if mix == "logits":
            first = first + kl(z[a], sum(alpha[:, b, None] * z[b] for b in range(J)), T)
        else:
            p = sum(alpha[:, b, None] * log_softmax(z[b] / T).exp() for b in range(J))
            first = first + kl_of_probabilities(z[a], p, T)
    leader = kl(z[J], sum(z[b] for b in range(J)) / J, T)
    return {
        "ce": sum(cross_entropy(z_k, labels) for z_k in z),
        "first": ramp(epoch, R) * first,
        "second": ramp(epoch, R) * leader,
    }


@pytest.mark.parametrize("K", [3, 4])
@pytest.mark.parametrize("epoch", [0, 40, 100])
@pytest.mark.parametrize("mix", ["logits", "probabilities"])
def test_every_loss_and_gradient_is_that_of_the_paper(K, epoch, mix):
    method = make("okddip", K=K, mix=mix).double()
    views, labels = images()
    out = method(views)
    losses = method.losses(out, labels, epoch)
    weights = list(method.parameters())
    assert_equal_losses(losses, expected_losses(method, out, labels, epoch, mix=mix), weights)


def test_the_default_is_that_of_the_authors_code():
    method = make("okddip").double()
    views, labels = images()
    out = method(views)
    losses = method.losses(out, labels, 80)
    assert_equal_losses(losses, expected_losses(method, out, labels, 80), [out.logits])


def test_temperature_and_ramp_up_go_into_the_formula():
    method = make("okddip", temperature=2.0, ramp_up=10, mix="probabilities").double()
    views, labels = images()
    out = method(views)
    expected = expected_losses(method, out, labels, 4, T=2.0, R=10, mix="probabilities")
    assert_equal_losses(method.losses(out, labels, 4), expected, [out.logits])


def test_probabilities_that_underflow_leave_losses_finite():
    method = make("okddip", mix="probabilities")
    (view,), labels = images()
    out = method([view.float()])
    out.logits = 1000 * out.logits
    losses = method.losses(out, labels, 80)
    assert all(value.isfinite() for value in losses.values())
    assert all(g.isfinite().all() for g in gradients(losses["first"], [out.logits]))


def test_attention_that_underflows_leaves_gradients_finite():
    method = make("okddip", mix="probabilities").double()
    method.attention.query.weight.data *= 1e6
    views, labels = images()
    losses = method.losses(method(views), labels, 80)
    weights = [method.attention.query.weight, method.attention.key.weight]
    assert all(g.isfinite().all() for g in gradients(losses["first"], weights))


def test_only_the_first_divergence_trains_the_attention():
    method = make("okddip").double()
    views, labels = images()
    losses = method.losses(method(views), labels, 80)
    attention = list(method.attention.parameters())
    assert all(g.abs().max() > 0 for g in gradients(losses["first"], attention))
    assert all(g.abs().max() == 0 for g in gradients(losses["second"] + losses["ce"], attention))


def test_the_auxiliary_peers_do_not_see_the_leader():
    method = make("okddip").double()
    views, labels = images()
    out = method(views)
    (g,) = gradients(method.losses(out, labels, 80)["first"], [out.logits])
    assert g[-1].abs().max() == 0
    assert g[:-1].abs().amax(dim=(1, 2)).min() > 0


def test_the_last_peer_is_the_leader_which_is_kept():
    method = make("okddip").double()
    out = method(images()[0])
    assert torch.equal(out.extra["leader"], out.logits[2])
    assert method.students() == {"leader": (method.peers, 2)}


def test_the_attention_has_an_eighth_of_the_channels_and_no_bias():
    attention = OKDDip(Peers([tiny(width=8) for _ in range(3)])).attention
    assert {n: tuple(p.shape) for n, p in attention.named_parameters()} == {
        "query.weight": (4, 32),
        "key.weight": (4, 32),
    }


def test_peers_of_different_width_are_brought_to_the_narrowest():
    torch.manual_seed(0)
    method = OKDDip(Peers([tiny(width=8), tiny(width=4), tiny(width=6)]))
    assert method.attention.query.weight.shape == (2, 16)
    (view,), labels = images()
    out = method([view.float()])
    assert all(value.isfinite() for value in method.losses(out, labels, 1).values())


def test_two_peers_are_refused():
    with pytest.raises(InputError, match="at least 3 peers, not 2"):
        make("okddip", K=2)
