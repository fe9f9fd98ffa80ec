"""CL-ILR against the formula, written out in float64."""

import pytest
import torch
from toys import make
from written_out import assert_equal_losses, cross_entropy, example, gradients, images, kl, ramp

from codistill import InputError
from codistill.networks.peers import Outputs


def expected_losses(z, labels, T=2.0, hard=0.5, soft=0.5, held=True):
    K = len(z)
    others = [sum(z[j] for j in range(K) if j != k) / (K - 1) for k in range(K)]
    others = [t.detach() if held else t for t in others]
    return {
        "ce": hard * sum(cross_entropy(z_k, labels) for z_k in z),
        "kd": soft * sum(kl(z[k], others[k], T) for k in range(K)),
    }


@pytest.mark.parametrize("K", [2, 3, 4])
def test_every_loss_and_gradient_is_that_of_the_formula(K):
    z, labels = example(K)
    losses = make("cl_ilr", K=K).losses(Outputs(z, []), labels, 0)
    assert_equal_losses(losses, expected_losses(z, labels), [z])


def test_temperature_and_weights_go_into_the_formula():
    z, labels = example(3)
    method = make("cl_ilr", temperature=3.0, hard_weight=0.2, soft_weight=0.7)
    losses = method.losses(Outputs(z, []), labels, 0)
    assert_equal_losses(losses, expected_losses(z, labels, T=3.0, hard=0.2, soft=0.7), [z])


@pytest.mark.parametrize("epoch", [0, 40, 80, 100])
def test_the_variant_of_okddips_code_is_that_of_its_formula(epoch):
    """Whole cross-entropy, a ramp-up, and targets that give gradients to the other heads."""
    z, labels = example(3)
    options = {"temperature": 3.0, "hard_weight": 1.0, "soft_weight": 1.0, "ramp_up": 80}
    method = make("cl_ilr", hold_targets=False, **options)
    expected = expected_losses(z, labels, 3.0, hard=1.0, soft=ramp(epoch, 80), held=False)
    assert_equal_losses(method.losses(Outputs(z, []), labels, epoch), expected, [z])


@pytest.mark.parametrize("shared", [1, 2])
def test_the_trunk_gets_the_mean_of_the_branches_gradients(shared):
    K = 3
    method = make("cl_ilr", shared, K).double()
    views, labels = images()
    loss = method(views).logits.square().sum()
    trunk, branches = (
        list(method.peers.trunk.parameters()),
        list(method.peers.branches.parameters()),
    )
    divided, own = gradients(loss, trunk), gradients(loss, branches)
    loss = method.peers(views).logits.square().sum()
    for d, whole in zip(divided, gradients(loss, trunk), strict=True):
        assert (d - whole / K).abs().max() < 1e-9
        assert whole.abs().max() > 0
    for d, whole in zip(own, gradients(loss, branches), strict=True):
        assert (d - whole).abs().max() < 1e-9


def test_the_gradient_of_every_view_is_divided():
    method = make("cl_ilr").double()
    views, labels = images()
    trunk = list(method.peers.trunk.parameters())
    one = gradients(method(views).logits.square().sum(), trunk)
    three = gradients(method([v.clone() for v in views * 3]).logits.square().sum(), trunk)
    assert all((a - b).abs().max() < 1e-9 for a, b in zip(one, three, strict=True))


def test_the_gradients_of_independent_peers_are_whole():
    method = make("cl_ilr", shared=0).double()
    views, labels = images()
    first = list(method.peers.branches[0][0].parameters())
    with_hook = gradients(method(views).logits.square().sum(), first)
    without = gradients(method.peers(views).logits.square().sum(), first)
    assert all((a - b).abs().max() < 1e-9 for a, b in zip(with_hook, without, strict=True))


def test_it_runs_where_nothing_asks_for_gradients():
    method = make("cl_ilr").double()
    with torch.no_grad():
        assert method(images()[0]).logits.shape[0] == 3


def test_one_peer_is_refused():
    with pytest.raises(InputError, match="at least 2 peers, not 1"):
        make("cl_ilr", K=1)


@pytest.mark.parametrize("option", [{"hard_weight": -0.1}, {"soft_weight": -1.0}, {"ramp_up": -1}])
def test_what_is_below_zero_is_refused(option):
    (name,) = option
    with pytest.raises(InputError, match=f"{name} is -.*: it has to be 0 or more"):
        make("cl_ilr", **option)
