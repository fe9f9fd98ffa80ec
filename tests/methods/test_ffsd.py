"""FFSD against the authors' code, written out in float64."""

import functools

import pytest
import torch
import torch.nn.functional as F
from toys import C, make, tiny
from written_out import (
    B,
    assert_equal_losses,
    batch_norm,
    cross_entropy,
    gradients,
    images,
    kl,
    ramp,
)

from codistill import InputError, Peers
from codistill.methods.papers.ffsd import FFSD, attention_loss, diversity_loss


def attention(x):
    """Of each image the mean square of the channels at every place, and that at length 1."""
    a = (x * x).sum(dim=1).flatten(1) / x.shape[1]
    return a, a / a.square().sum(dim=1, keepdim=True).sqrt()


def likeness(x, y):
    return (attention(x)[1] - attention(y)[1]).square().sum() / attention(x)[0].numel()


def diversity(x, y):
    """Image by image, place by place."""
    (raw, y), x = attention(y), attention(x)[1]
    total = 0.0
    for image in range(len(x)):
        length = raw[image].square().sum().sqrt()
        least = y[image].sort().values[y.shape[1] // 3 - 1]
        for place in range(y.shape[1]):
            t = y[image, place]
            if t > least:
                t = length - t
            elif t == least:
                t = length / 2
            total = total + (x[image, place] - t) ** 2
    return total / x.numel()


def depthwise_then_pointwise(x, depthwise, bn1, pointwise, bn2):
    x = F.conv2d(x, depthwise.weight, padding=1, groups=x.shape[1])
    x = batch_norm(x, bn1).clamp(min=0)
    return batch_norm(F.conv2d(x, pointwise.weight), bn2).clamp(min=0)


def expected_losses(method, out, labels, epoch, T=2.0, weights=(1e-5, 10.0), warm_up=5):
    *z, leader = out.logits
    maps = [stages[-1] for stages in out.stages]
    *maps, own = maps
    J, m = len(z), method.fusion
    together = torch.cat([x.detach() for x in maps], dim=1)
    fused = depthwise_then_pointwise(together, m.depthwise, m.bn1, m.pointwise, m.bn2)
    z_f = fused.mean((2, 3)) @ m.fc.weight.T + m.fc.bias
    s = method.spread
    spread = depthwise_then_pointwise(own, s[0], s[1], s[3], s[4])
    w = ramp(epoch + 1, warm_up) if warm_up else 1.0
    pairs = [(a, b) for a in range(J) for b in range(J) if a != b]
    apart = sum(diversity(maps[a], maps[a - 1].detach()) for a in range(1, J))
    return {
        "ce": sum(cross_entropy(x, labels) for x in [*z, leader, z_f]),
        "dml": sum(kl(z[a], z[b].detach(), T) for a, b in pairs) / (J - 1),
        "diversity": w * weights[0] * apart,
        "ekd": kl(z_f, sum(z).detach() / J, T),
        "fkd": kl(leader, z_f.detach(), T),
        "attention": w * weights[1] * (likeness(own, fused.detach()) + likeness(spread, together)),
    }


@functools.cache
def outputs(K, shared):
    return images(size=16), make("ffsd", shared, K).double()  # maps of 4x4 places


@pytest.mark.parametrize(("K", "shared"), [(3, 0), (3, 2), (4, 0)])
@pytest.mark.parametrize("epoch", [0, 3, 4, 100])
def test_every_loss_and_gradient_is_that_of_the_authors_code(K, shared, epoch):
    (views, labels), method = outputs(K, shared)
    out = method(views)
    expected = expected_losses(method, out, labels, epoch)
    expected["diversity"] = 1e5 * expected["diversity"]
    got = method.losses(out, labels, epoch)
    got["diversity"] = 1e5 * got["diversity"]
    assert_equal_losses(got, expected, list(method.parameters()))


def test_temperature_and_weights_go_into_the_formula():
    options = {"temperature": 3.0, "diversity_weight": 0.5, "attention_weight": 2.0, "warm_up": 0}
    method = make("ffsd", **options).double()
    views, labels = images(size=16)
    out = method(views)
    expected = expected_losses(method, out, labels, 0, 3.0, (0.5, 2.0), 0)
    assert_equal_losses(method.losses(out, labels, 0), expected, list(method.parameters()))


def test_who_learns_from_what():
    method = make("ffsd", shared=0).double()
    views, labels = images(size=16)
    out = method(views)
    losses = method.losses(out, labels, 10)
    students = [*method.peers.branches[:2].parameters(), *method.peers.heads[:2].parameters()]
    leader = list(method.peers.branches[2].parameters())
    fusion = list(method.fusion.parameters())

    def moves(term, weights):
        return any(g.abs().max() > 0 for g in gradients(losses[term], weights))

    assert {t for t in losses if moves(t, students)} == {"ce", "dml", "diversity"}
    assert {t for t in losses if moves(t, leader)} == {"ce", "fkd", "attention"}
    assert {t for t in losses if moves(t, fusion)} == {"ce", "ekd"}
    first = list(method.peers.branches[0].parameters())
    assert not moves("diversity", first)


def test_diversity_turns_the_others_attention_round():
    """By hand: attention (0, 3, 4) of length 5 is (0, 0.6, 0.8); its least third stays low."""
    other = torch.tensor([0.0, 3.0, 4.0], dtype=torch.float64).sqrt().view(1, 1, 1, 3)
    own = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).view(1, 1, 1, 3)
    target = [2.5, 5 - 0.6, 5 - 0.8]  # the least place itself gets half of the length
    expected = ((1 - target[0]) ** 2 + target[1] ** 2 + target[2] ** 2) / 3
    assert diversity_loss(own, other).item() == pytest.approx(expected, abs=1e-12)


def test_maps_of_one_place_have_finite_losses():
    x, y = torch.rand(2, 3, 5, 1, 1).unbind()
    assert diversity_loss(x, y).isfinite()
    assert attention_loss([x], [y]).item() == pytest.approx(0.0, abs=1e-12)


def test_attention_of_the_same_places_is_alike_whatever_its_size_and_channels():
    x = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    assert attention_loss([x], [torch.cat([3 * x, x], dim=1)]).item() < 1e-12
    assert attention_loss([x], [3 * x, x]).item() < 1e-12
    assert attention_loss([x], [x.flip(3)]).item() > 1e-3


def test_fusion_has_a_weight_decay_of_its_own():
    method = make("ffsd", fusion_weight_decay=3e-5)
    optimizer = method.optimizers(functools.partial(torch.optim.SGD, lr=0.1, weight_decay=1e-4))
    others, fusion = optimizer["main"].param_groups
    assert (others["weight_decay"], fusion["weight_decay"]) == (1e-4, 3e-5)
    assert {*fusion["params"]} == {*method.fusion.parameters()}
    assert len(others["params"]) + len(fusion["params"]) == len([*method.parameters()])


def test_the_last_peer_is_the_leader_which_is_kept():
    method = make("ffsd").double()
    out = method(images()[0])
    assert torch.equal(out.extra["leader"], out.logits[2])
    assert method.students() == {"leader": (method.peers, 2)}


def test_peers_of_different_width_and_size_learn_together():
    torch.manual_seed(0)
    peers = Peers([tiny(width=8), tiny(width=4, strides=(1, 2, 1)), tiny(width=6)])
    method = FFSD(peers)
    (view,), labels = images(size=16)
    losses = method.losses(method([view.float()]), labels, 1)
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


def test_two_peers_are_refused():
    with pytest.raises(InputError, match="at least 3 peers, not 2"):
        make("ffsd", K=2)


def test_the_logits_of_the_fused_map_are_evaluated():
    out = make("ffsd").double()(images()[0])
    assert out.extra["fused"].shape == (B, C)
    assert "fused" in out.classifiers
    assert out.hidden["fused"].ndim == 4
