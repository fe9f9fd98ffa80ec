"""Codistillation against the paper, written out in float64."""

import pytest
import torch
from toys import make, sgd, toy_batches
from written_out import (
    assert_equal_losses,
    cross_entropy,
    images,
    kl_of_probabilities,
    log_softmax,
)

from codistill import InputError, fit


def expected_losses(method, out, view, labels, T=1.0, weight=1.0):
    z, K = out.logits, len(out.logits)
    stale = [log_softmax(method.copies.module.student(k).eval()(view) / T).exp() for k in range(K)]
    kd = 0
    for k in range(K):
        mean = sum(stale[j].detach() for j in range(K) if j != k) / (K - 1)
        kd = kd + kl_of_probabilities(z[k], mean, T)
    return {"ce": sum(cross_entropy(z_k, labels) for z_k in z), "kd": weight * kd}


def stale(K=3, **options):
    """A method whose copies differ from its peers."""
    method = make("codistillation", 0, K, **options).double()
    method.begin_epoch(method.burn_in, None)
    for p in method.copies.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return method


@pytest.mark.parametrize("K", [2, 3])
def test_every_loss_and_gradient_is_that_of_the_paper(K):
    method = stale(K)
    (view,), labels = images()
    out = method([view])
    losses = method.losses(out, labels, 1)
    expected = expected_losses(method, out, view, labels)
    assert_equal_losses(losses, expected, list(method.peers.parameters()))


def test_temperature_and_weight_go_into_the_formula():
    method = stale(temperature=3.0, kd_weight=0.5)
    (view,), labels = images()
    out = method([view])
    expected = expected_losses(method, out, view, labels, T=3.0, weight=0.5)
    assert_equal_losses(method.losses(out, labels, 7), expected, [out.logits])


@pytest.mark.parametrize("burn_in", [0, 1, 3])
def test_in_the_burn_in_the_peers_learn_from_labels_alone(burn_in):
    method = stale(burn_in=burn_in)
    views, labels = images()
    out = method(views)
    for epoch in range(5):
        losses = method.losses(out, labels, epoch)
        assert losses.keys() == {"ce", "kd"}
        assert (losses["kd"] == 0) == (epoch < burn_in)


@pytest.mark.parametrize(
    ("burn_in", "refresh_every", "renewed"),
    [(0, 1, [0, 1, 2, 3, 4, 5]), (1, 2, [1, 3, 5]), (2, 3, [2, 5]), (2, 1, [2, 3, 4, 5])],
)
def test_copies_are_renewed_before_these_epochs(burn_in, refresh_every, renewed):
    method = make("codistillation", 0, burn_in=burn_in, refresh_every=refresh_every)
    seen = []
    for epoch in range(6):
        for p in method.peers.parameters():
            p.data += 1
        method.begin_epoch(epoch, None)
        peers, copies = method.peers.state_dict(), method.copies.module.state_dict()
        if all(torch.equal(peers[n], copies[n]) for n in peers):
            seen.append(epoch)
    assert seen == renewed


@pytest.mark.parametrize(("burn_in", "epoch"), [(0, 1), (1, 2), (3, 4)])
def test_a_training_may_begin_in_a_later_epoch(burn_in, epoch):
    method = make("codistillation", 0, burn_in=burn_in, refresh_every=2)
    method.begin_epoch(epoch, None)
    (batch,) = toy_batches(n=1)
    assert method.losses(method(batch.views), batch.labels, epoch)["kd"] > 0


def test_copies_stay_as_they_are_within_an_epoch():
    method = make("codistillation", 0, burn_in=0)
    seen = []

    class Watched:
        def __iter__(self):
            for batch in toy_batches():
                seen.append({n: t.clone() for n, t in method.copies.state_dict().items()})
                yield batch

    before = {n: t.clone() for n, t in method.peers.state_dict().items()}
    fit(method, Watched(), epochs=1, make_optimizer=sgd)
    assert len(seen) == 4
    for copies in seen:
        assert all(torch.equal(copies[f"module.{n}"], t) for n, t in before.items())
    moved = [n for n, t in method.peers.state_dict().items() if not torch.equal(t, before[n])]
    assert len(moved) == len(before)


def test_copies_are_in_eval_mode_and_are_not_trained():
    method = make("codistillation", 0).train()
    assert not any(m.training for m in method.copies.modules())
    assert not any(p.requires_grad for p in method.copies.parameters())
    assert all(p.requires_grad for p in method.peers.parameters())


def test_copies_that_were_never_renewed_are_refused_when_they_should_teach():
    method = make("codistillation", 0)
    (batch,) = toy_batches(n=1)
    out = method(batch.views)
    assert method.losses(out, batch.labels, 0)["kd"] == 0
    with pytest.raises(InputError, match=r"never renewed: call method.begin_epoch"):
        method.losses(out, batch.labels, 1)
    method.begin_epoch(1, None)
    assert method.losses(out, batch.labels, 1)["kd"] > 0


def test_a_trunk_is_refused():
    with pytest.raises(InputError, match=r"trained apart.*these share 2 stages.*shared=0"):
        make("codistillation", 2)


def test_one_peer_is_refused():
    with pytest.raises(InputError, match="at least 2 peers, not 1"):
        make("codistillation", 0, K=1)
