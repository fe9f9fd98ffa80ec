"""ONE against the paper, written out in float64."""

import pytest
from toys import make
from written_out import (
    assert_equal_losses,
    batch_norm,
    cross_entropy,
    example,
    gradients,
    images,
    kl,
    ramp,
)

from codistill import InputError
from codistill.networks.peers import Outputs


def expected_losses(z, z_m, labels, epoch, T=3.0, R=80):
    ce = sum(cross_entropy(z_k, labels) for z_k in z) + cross_entropy(z_m, labels)
    return {"ce": ce, "kd": ramp(epoch, R) * sum(kl(z_k, z_m.detach(), T) for z_k in z)}


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("epoch", [0, 40, 100])
def test_every_loss_and_gradient_is_that_of_the_paper(K, epoch):
    z, labels = example(K)
    z_m = example(1, seed=1)[0]
    losses = make("one", K=K).losses(Outputs(z, [], {"gated": z_m[0]}), labels, epoch)
    assert_equal_losses(losses, expected_losses(z, z_m[0], labels, epoch), [z, z_m])


def test_temperature_and_ramp_up_go_into_the_formula():
    z, labels = example(3)
    out = Outputs(z, [], {"gated": z[0] + z[1]})
    losses = make("one", temperature=2.0, ramp_up=10).losses(out, labels, 4)
    assert_equal_losses(losses, expected_losses(z, z[0] + z[1], labels, 4, T=2.0, R=10), [z])


@pytest.mark.parametrize("shared", [1, 2, 3])
def test_the_gate_weighs_the_branches_by_the_map_of_the_trunk(shared):
    method = make("one", shared).double()
    views, _ = images()
    out = method(views)
    x = views[0]
    for stage in method.peers.trunk:
        x = stage(x)
    linear, bn = method.gate[0], method.gate[1]
    s = batch_norm(x.mean((2, 3)) @ linear.weight.T, bn).clamp(min=0)
    g = s.exp() / s.exp().sum(dim=1, keepdim=True)  # (B, K)
    gated = sum(g[:, k, None] * out.logits[k] for k in range(3))
    assert (out.extra["gated"] - gated).abs().max() < 1e-9
    assert (out.extra["ensemble"] - out.logits.mean(0)).abs().max() < 1e-12


def test_the_gated_ensemble_trains_gate_and_peers_from_labels_only():
    method = make("one").double()
    views, labels = images()
    losses = method.losses(method(views), labels, 80)
    of_gate = list(method.gate.parameters())
    assert all(g.abs().max() > 0 for g in gradients(losses["ce"], of_gate))
    assert all(g.abs().max() == 0 for g in gradients(losses["kd"], of_gate))


def test_the_gate_trains_the_trunk():
    method = make("one").double()
    for k, head in enumerate(method.peers.heads):
        head[-1].weight.data.zero_()  # the branches say the same of every image
        head[-1].bias.data.fill_(k)
    (first, *_) = method.peers.trunk.parameters()
    out = method(images()[0])
    assert gradients(out.logits.square().sum(), [first])[0].abs().max() == 0
    assert gradients(out.extra["gated"].square().sum(), [first])[0].abs().max() > 1e-6


def test_independent_peers_are_refused():
    with pytest.raises(InputError, match=r"ONE gates on .* a trunk.*shared >= 1"):
        make("one", shared=0)


def test_one_branch_is_refused():
    with pytest.raises(InputError, match="at least 2 peers, not 1"):
        make("one", K=1)
