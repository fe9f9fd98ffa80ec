"""OKDMDE against its formulas, as docs/methods/okdmde.md has them, written out in float64."""

from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toys import make, tiny
from written_out import (
    assert_equal_losses,
    batch_norm,
    cross_entropy,
    gradients,
    images,
    kl,
    ramp,
)

from codistill import InputError, Network, Peers
from codistill.methods.papers.okdmde import OKDMDE, cd_loss


def cd(weights, form="product"):
    """Entry by entry: the sum of ||W_a^T W_b||_F over pairs."""
    C = len(weights[0])
    total = 0
    for W_a, W_b in combinations(weights, 2):
        if form == "normalised":
            W_a, W_b = (W / W.square().sum(dim=1, keepdim=True).sqrt() for W in (W_a, W_b))
        squares = 0
        for i in range(W_a.shape[1]):
            for j in range(W_b.shape[1]):
                squares = squares + sum(W_a[c, i] * W_b[c, j] for c in range(C)) ** 2
        total = total + squares.sqrt() / (C if form == "normalised" else 1)
    return total


def expected_losses(
    method, out, labels, epoch, T=3.0, R=80, fusion=True, weight=5e-8, form="product"
):
    attention = method.attention
    L, E = attention.query.weight, attention.key.weight
    z, J = out.logits, len(out.logits) - 1
    maps = [m[-1] for m in out.stages[:J]]
    if fusion:
        f = method.fusion.fuse
        U = batch_norm(F.conv2d(torch.cat(maps, 1), f[0].weight), f[1]).clamp(min=0)
        U = batch_norm(F.conv2d(U, f[3].weight, padding=1), f[4]).clamp(min=0)
        maps = [m + U for m in maps]
    g = [m.mean((2, 3)) for m in maps]
    first = 0
    for a in range(J):
        scores = torch.stack([((g[a] @ L.T) * (g[b] @ E.T)).sum(1) for b in range(J)], dim=1)
        alpha = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
        first = first + kl(z[a], sum(alpha[:, b, None] * z[b] for b in range(J)), T)
    expected = {
        "ce": sum(cross_entropy(z_k, labels) for z_k in z),
        "first": ramp(epoch, R) * first,
        "second": ramp(epoch, R) * kl(z[J], sum(z[b] for b in range(J)) / J, T),
    }
    if weight:
        heads = [method.peers.heads[a][-1].weight for a in range(J)]
        expected["cd"] = weight * cd(heads, form)
    return expected


@pytest.mark.parametrize("K", [3, 4])
@pytest.mark.parametrize("epoch", [0, 40, 100])
def test_every_loss_and_gradient_is_that_of_the_formula(K, epoch):
    method = make("okdmde", K=K, diversity_weight=0.1).double()
    views, labels = images()
    out = method(views)
    losses = method.losses(out, labels, epoch)
    expected = expected_losses(method, out, labels, epoch, weight=0.1)
    assert_equal_losses(losses, expected, list(method.parameters()))


@pytest.mark.parametrize("fusion", [False, True])
@pytest.mark.parametrize("form", ["product", "normalised"])
@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_each_part_can_be_left_out(fusion, form, weight):
    options = {"fusion": fusion, "diversity": form, "diversity_weight": weight}
    method = make("okdmde", temperature=2.0, ramp_up=10, **options).double()
    views, labels = images()
    out = method(views)
    expected = expected_losses(
        method, out, labels, 4, T=2.0, R=10, fusion=fusion, weight=weight, form=form
    )
    assert_equal_losses(method.losses(out, labels, 4), expected, list(method.parameters()))


def test_the_defaults_are_those_of_the_docs():
    method = make("okdmde").double()
    views, labels = images()
    out = method(views)
    losses = method.losses(out, labels, 80)
    assert_equal_losses(losses, expected_losses(method, out, labels, 80), [out.logits])


def test_the_diversity_loss_moves_classifiers_apart():
    """In a re-implementation it is cut off from the weights, so that it does nothing."""
    method = make("okdmde", diversity_weight=1.0)
    weights = [head[-1].weight for head in method.peers.heads]
    before = cd_loss(weights[:-1], "normalised").item()
    for _ in range(20):
        grads = gradients(cd_loss(weights[:-1], "normalised"), weights)
        assert grads[-1].abs().max() == 0  # the leader's
        with torch.no_grad():
            for W, g in zip(weights, grads, strict=True):
                W -= 0.1 * g
    assert cd_loss(weights[:-1], "normalised") < before - 0.01


def test_the_normalised_diversity_lies_between_0_and_1_whatever_the_scale():
    W, V = torch.randn(5, 8), torch.randn(5, 6)
    assert cd_loss([W, V], "normalised") == pytest.approx(cd_loss([9 * W, 0.1 * V], "normalised"))
    assert 0 < cd_loss([W, V], "normalised") < 1
    same = torch.ones(5, 8)
    assert cd_loss([same, same], "normalised") == pytest.approx(1.0)
    apart = torch.zeros(2, 4), torch.zeros(2, 4)
    apart[0][:] = torch.tensor([[1.0, 0, 0, 0], [1.0, 0, 0, 0]])
    apart[1][:] = torch.tensor([[0, 1.0, 0, 0], [0, -1.0, 0, 0]])
    assert cd_loss(apart, "normalised") == pytest.approx(0.0)


def test_only_the_first_divergence_trains_attention_and_fusion():
    method = make("okdmde").double()
    views, labels = images()
    losses = method.losses(method(views), labels, 80)
    own = [*method.attention.parameters(), *method.fusion.parameters()]
    assert all(g.abs().max() > 0 for g in gradients(losses["first"], own))
    rest = losses["ce"] + losses["second"] + losses["cd"]
    assert all(g.abs().max() == 0 for g in gradients(rest, own))


def test_the_last_peer_is_the_leader_which_is_kept():
    method = make("okdmde").double()
    out = method(images()[0])
    assert torch.equal(out.extra["leader"], out.logits[2])
    assert method.students() == {"leader": (method.peers, 2)}


def test_peers_of_different_width_and_map_size_learn_together():
    torch.manual_seed(0)
    networks = [tiny(width=8), tiny(width=4, strides=(2, 2, 2)), tiny(width=6)]
    method = OKDMDE(Peers(networks))
    (view,), labels = images()
    assert all(v.isfinite() for v in method.losses(method([view.float()]), labels, 1).values())


def test_two_peers_are_refused():
    with pytest.raises(InputError, match="at least 3 peers, not 2"):
        make("okdmde", K=2)


def test_a_head_without_a_linear_layer_is_refused_unless_diversity_is_off():
    def flat():
        return Network([nn.Conv2d(3, 4, 8)], [4], [8], 4, nn.Flatten())

    with pytest.raises(InputError, match=r"no linear layer.*diversity_weight=0"):
        OKDMDE(Peers([flat() for _ in range(3)]))
    assert OKDMDE(Peers([flat() for _ in range(3)]), diversity_weight=0.0).forwards == 1
