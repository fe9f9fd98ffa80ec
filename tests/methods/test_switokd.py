"""SwitOKD against the authors' code, written out in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from toys import make, sgd, tiny, toy_batches
from written_out import assert_equal_losses, cross_entropy, example, gradients, kl, log_softmax

from codistill import InputError, Peers
from codistill.methods.papers.switokd import SwitOKD
from codistill.networks.peers import Outputs


def pauses(z_s, z_t, labels, T=1.0):
    """Whether a batch is one in which the larger network is not updated for a student."""
    p_s, p_t = log_softmax(z_s.detach() / T).exp(), log_softmax(z_t.detach() / T).exp()
    B, gap, d_s, d_t = len(labels), 0.0, 0.0, 0.0
    for b, label in enumerate(labels):
        for c in range(z_s.shape[1]):
            y = 1.0 if c == label else 0.0
            gap = gap + abs(p_s[b, c] - p_t[b, c]) / B
            d_s = d_s + abs(p_s[b, c] - y) / B
            d_t = d_t + abs(p_t[b, c] - y) / B
    delta = d_s - torch.exp(-d_t / (d_t + d_s)) * d_t
    return bool(gap > delta and d_t < d_s)


def expected_losses(z, labels, T=1.0):
    *students, larger = z
    learns = [0.0 if pauses(z_s, larger, labels, T) else 1.0 for z_s in students]
    K, S = len(z), len(students)
    pairs = [(s, k) for s in range(S) for k in range(K) if k != s]
    return {
        "ce": sum(cross_entropy(z_s, labels) for z_s in students)
        + max(learns) * cross_entropy(larger, labels),
        "kd": sum(kl(z[s], z[k].detach(), T) for s, k in pairs),
        "kd_back": sum(w * kl(larger, z[s].detach(), T) for s, w in enumerate(learns)),
    }


def ahead(z, labels, by):
    """Logits of which the last, the larger network's, are better by some."""
    with torch.no_grad():
        z[-1, range(len(labels)), labels] += by
    return z


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("T", [1.0, 3.0])
@pytest.mark.parametrize("by", [-4.0, 0.0, 1.0, 2.0, 4.0])
def test_every_loss_and_gradient_is_that_of_the_authors_code(K, T, by):
    z, labels = example(K)
    ahead(z, labels, by)
    losses = make("switokd", K=K, temperature=T).losses(Outputs(z, []), labels, 0)
    assert_equal_losses(losses, expected_losses(z, labels, T), [z])


def test_the_examples_hold_pauses_and_none():
    seen = set()
    for by in (-4.0, 0.0, 1.0, 2.0, 4.0):
        z, labels = example(3)
        ahead(z, labels, by)
        seen.add(tuple(pauses(z_s, z[-1], labels) for z_s in z[:-1]))
    assert {(False, False), (True, True)} < seen  # and one of the two students alone


def test_in_a_pause_nothing_reaches_the_larger_network():
    z, labels = example(2)
    ahead(z, labels, 3.0)
    method = make("switokd", K=2)
    assert method.learns(z, labels).tolist() == [0.0]
    (g,) = gradients(sum(method.losses(Outputs(z, []), labels, 0).values()), [z])
    assert g[1].abs().max() == 0
    assert g[0].abs().max() > 0


def test_a_larger_network_that_is_behind_learns():
    z, labels = example(2)
    ahead(z, labels, -3.0)
    assert make("switokd", K=2).learns(z, labels).tolist() == [1.0]


def test_the_threshold_is_that_of_the_paper():
    """By hand: p_s = (0.4, 0.6, 0), y the first, d_s = 1.2."""
    method, label = make("switokd", K=2), torch.tensor([0])
    apart, near = [0.5, 0.0, 0.5], [0.45, 0.45, 0.1]
    for p_t, gap, d_t, learns in ((apart, 1.2, 1.0, 0.0), (near, 0.3, 1.1, 1.0)):
        assert (gap > 1.2 - math.exp(-d_t / (d_t + 1.2)) * d_t) == (not learns)
        z = torch.tensor([[[0.4, 0.6, 0.0]], [p_t]]).log().clamp(min=-100)
        assert method.learns(z, label).tolist() == [learns]


def test_distributions_as_labels_are_distances_from_them():
    z, labels = example(3)
    ahead(z, labels, 1.0)
    method, rows = make("switokd"), F.one_hot(labels, 4).double()
    assert torch.equal(method.learns(z, labels), method.learns(z, rows))
    assert torch.equal(method.learns(z, labels), method.learns(z, 2.5 * rows))


def test_a_step_with_a_pause_moves_the_students_and_not_the_larger_network():
    method = SwitOKD(Peers([tiny(), tiny()]))
    method.learns = lambda z, labels: torch.zeros(1)
    before = [p.detach().clone() for p in method.peers.parameters()]
    (batch,) = toy_batches(n=1)
    optimizers = method.optimizers(lambda params: sgd(params, weight_decay=0.0))
    method.training_step(batch, optimizers, 0)
    same = {
        n: torch.equal(p, b)
        for (n, p), b in zip(method.peers.named_parameters(), before, strict=True)
    }
    larger = {n for n in same if n.split(".")[1] == "1"}
    assert all(same[n] for n in larger)
    assert not any(same[n] for n in same.keys() - larger)


def test_the_students_are_kept_not_the_larger_network():
    method = make("switokd")
    assert method.students() == {f"peer{k}": (method.peers, k) for k in range(2)}


def test_one_peer_is_refused():
    with pytest.raises(InputError, match="needs at least 2 peers, not 1"):
        make("switokd", K=1)
