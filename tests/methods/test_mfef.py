"""MFEF against its formulas, as docs/methods/mfef.md has them, written out in float64."""

import functools

import pytest
import torch
import torch.nn.functional as F
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

from codistill import InputError, Peers
from codistill.methods.papers.mfef import MFEF, ChannelAttention, MultiScale, SpatialAttention

PARTS = ("multi_scale", "channel_attention", "spatial_attention")


def processed(weights, x, k, parts):
    """The map of peer k after the parts that are on, from weights by their names."""
    position = 0
    if "multi_scale" in parts:
        name, d = f"process.{k}.{position}", x.shape[1] // 4
        groups = [x[:, s * d : (s + 1) * d] for s in range(4)]
        x = torch.cat(
            [
                F.conv2d(g, weights[f"{name}.convolutions.{s}.weight"], padding=s + 1, groups=d)
                for s, g in enumerate(groups)
            ],
            dim=1,
        )
        x = norm(weights, x, f"{name}.bn").clamp(min=0)
        position += 1
    if "channel_attention" in parts:
        name, h = f"process.{k}.{position}.weigh", x.mean((2, 3))
        h = (h @ weights[f"{name}.0.weight"].T + weights[f"{name}.0.bias"]).clamp(min=0)
        h = h @ weights[f"{name}.2.weight"].T + weights[f"{name}.2.bias"]
        x = x / (1 + (-h).exp())[:, :, None, None]
        position += 1
    if "spatial_attention" in parts:
        both = torch.stack([x.mean(1), x.max(1).values], dim=1)
        s = F.conv2d(both, weights[f"process.{k}.{position}.weigh.weight"], padding=3)
        x = x / (1 + (-s).exp())
    return x


def norm(weights, x, name):
    bn = torch.nn.Module()
    bn.weight, bn.bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return batch_norm(x, bn)


def expected_losses(method, out, labels, epoch, parts=PARTS, T=3.0, R=80):
    weights = dict(method.named_parameters())
    maps = [processed(weights, m[-1], k, parts) for k, m in enumerate(out.stages)]
    x = torch.cat(maps, dim=1)
    x = F.conv2d(x, weights["fusion.depthwise.weight"], padding=1, groups=x.shape[1])
    x = norm(weights, x, "fusion.bn1").clamp(min=0)
    x = norm(weights, F.conv2d(x, weights["fusion.pointwise.weight"]), "fusion.bn2").clamp(min=0)
    z_f = x.mean((2, 3)) @ weights["fusion.fc.weight"].T + weights["fusion.fc.bias"]
    z = out.logits
    return {
        "ce": sum(cross_entropy(z_k, labels) for z_k in z) + cross_entropy(z_f, labels),
        "ekd": ramp(epoch, R) * kl(z_f, (sum(z) / len(z)).detach(), T),
        "fkd": ramp(epoch, R) * sum(kl(z_k, z_f.detach(), T) for z_k in z),
    }


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("epoch", [0, 40, 100])
def test_every_loss_and_gradient_is_that_of_the_formula(K, epoch):
    method = make("mfef", K=K).double()
    views, labels = images()
    out = method(views)
    losses = method.losses(out, labels, epoch)
    expected = expected_losses(method, out, labels, epoch)
    assert_equal_losses(losses, expected, list(method.parameters()))


@pytest.mark.parametrize("parts", [(), PARTS[:1], PARTS[1:2], PARTS[2:], PARTS[1:]])
def test_each_part_can_be_left_out(parts):
    method = make("mfef", **{part: part in parts for part in PARTS}).double()
    views, labels = images()
    out = method(views)
    expected = expected_losses(method, out, labels, 80, parts)
    assert_equal_losses(method.losses(out, labels, 80), expected, list(method.parameters()))


def test_temperature_and_ramp_up_go_into_the_formula():
    method = make("mfef", temperature=2.0, ramp_up=10).double()
    views, labels = images()
    out = method(views)
    expected = expected_losses(method, out, labels, 4, T=2.0, R=10)
    assert_equal_losses(method.losses(out, labels, 4), expected, [out.logits])


def test_channels_that_cannot_be_divided_by_4_are_all_convolved():
    block = MultiScale(10)
    assert [c.weight.shape[0] for c in block.convolutions] == [3, 3, 2, 2]
    assert [c.weight.shape[-1] for c in block.convolutions] == [3, 5, 7, 9]
    assert block(torch.randn(2, 10, 6, 6)).shape == (2, 10, 6, 6)


def test_attention_only_weakens():
    x = torch.rand(2, 32, 5, 5)
    for attention in (ChannelAttention(32), SpatialAttention()):
        assert ((attention(x) < x) & (attention(x) > 0)).all()
    weights = ChannelAttention(32)(x) / x
    assert weights.std(dim=(2, 3)).max() < 1e-6  # one for each channel
    weights = SpatialAttention()(x) / x
    assert weights.std(dim=1).max() < 1e-6  # one for each position


def test_the_squeeze_is_sixteenfold():
    assert ChannelAttention(64).weigh[0].weight.shape == (4, 64)


def test_the_fused_classifier_trains_peers_and_parts_from_labels():
    method = make("mfef").double()
    views, labels = images()
    losses = method.losses(method(views), labels, 80)
    own = list(method.process.parameters())
    assert all(g.abs().max() > 0 for g in gradients(losses["ekd"], own))
    assert all(g.abs().max() == 0 for g in gradients(losses["fkd"], own))
    (trunk, *_) = method.peers.trunk.parameters()
    assert gradients(losses["ekd"], [trunk])[0].abs().max() > 0
    heads = list(method.peers.heads.parameters())
    assert all(g.abs().max() == 0 for g in gradients(losses["ekd"], heads))


def test_what_the_method_adds_has_a_weight_decay_of_its_own():
    method = make("mfef", fusion_weight_decay=3e-4)
    sgd = functools.partial(torch.optim.SGD, lr=0.1, weight_decay=1e-4)
    groups = method.optimizers(sgd)["main"].param_groups
    decay = {p: group["weight_decay"] for group in groups for p in group["params"]}
    for name, p in method.named_parameters():
        assert decay[p] == (1e-4 if name.startswith("peers.") else 3e-4), name


def test_peers_of_different_width_and_map_size_learn_together():
    torch.manual_seed(0)
    method = MFEF(Peers([tiny(width=4), tiny(width=6, strides=(1, 2, 1))]))
    (view,), labels = images()
    assert all(v.isfinite() for v in method.losses(method([view.float()]), labels, 1).values())


def test_a_map_of_fewer_than_4_channels_is_refused_unless_the_part_is_off():
    def thin():
        return tiny(width=3, strides=(1,))

    with pytest.raises(InputError, match=r"into 4 groups.*has only 3.*multi_scale=False"):
        MFEF(Peers([thin(), thin()]))
    assert MFEF(Peers([thin(), thin()]), multi_scale=False).forwards == 1


def test_one_peer_is_refused():
    with pytest.raises(InputError, match="at least 2 peers, not 1"):
        make("mfef", K=1)
