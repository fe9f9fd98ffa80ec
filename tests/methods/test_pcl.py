"""PCL against the formulas, written out in float64."""

import pytest
import torch
from dispatched import Dispatched
from toys import assert_same_tensors, make, sgd, toy_batches
from written_out import assert_equal_losses, cross_entropy, gradients, images, kl, ramp

from codistill import Batch, InputError, minimize


def expected_losses(method, out, labels, epoch, T=3.0, R=80):
    z, K = out.logits, len(out.logits)
    h = torch.cat([maps[-1].mean((2, 3)) for maps in out.stages], dim=1)
    z_f = h @ method.fused.weight.T + method.fused.bias
    means = [out.extra[f"mean_teacher{k}"].detach() for k in range(K)]
    mutual = sum(kl(z[k], means[j], T) for k in range(K) for j in range(K) if j != k) / (K - 1)
    return {
        "ce": sum(cross_entropy(z_k, labels) for z_k in z) + cross_entropy(z_f, labels),
        "fkd": ramp(epoch, R) * sum(kl(z_k, z_f.detach(), T) for z_k in z),
        "mkd": ramp(epoch, R) * mutual,
    }


def differing(K=3, shared=2, **options):
    """PCL whose mean teachers differ from their peers."""
    method = make("pcl", shared, K, **options).double()
    for p in method.mean_teachers.parameters():
        p.data += 0.1 * torch.randn_like(p)
    method.step += 1
    return method


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("shared", [0, 2])
@pytest.mark.parametrize("epoch", [0, 40, 100])
def test_every_loss_and_gradient_is_that_of_the_formula(K, shared, epoch):
    method = differing(K, shared)
    views, labels = images(views=K)
    out = method(views)
    losses = method.losses(out, labels, epoch)
    wrt = [*method.peers.parameters(), *method.fused.parameters()]
    assert_equal_losses(losses, expected_losses(method, out, labels, epoch), wrt)


def test_temperature_and_ramp_up_go_into_the_formula():
    method = differing(temperature=2.0, ramp_up=10)
    views, labels = images(views=3)
    out = method(views)
    expected = expected_losses(method, out, labels, 4, T=2.0, R=10)
    assert_equal_losses(method.losses(out, labels, 4), expected, [out.logits])


def test_a_peer_and_its_mean_teacher_see_the_same_view():
    method = make("pcl").double()
    views, _ = images(views=3)
    out = method(views)
    assert method.views == 3
    for k in range(3):
        assert out.stages[k][0] is views[k]
        alone = method.mean_teachers.module.student(k)(views[k])
        assert (out.extra[f"mean_teacher{k}"] - alone).abs().max() < 1e-9


def test_a_mean_teacher_is_the_average_of_weights_and_buffers():
    """Step by step: keep min(1 - 1/(t+1), decay) of what was, t from 0."""
    method = make("pcl", decay=0.6).double()
    optimizers = method.optimizers(sgd)
    means = None
    for t in range(4):
        views, labels = images(views=3, seed=t)
        method.training_step(Batch(views, labels), optimizers, 80)
        now = {n: v.clone() for n, v in method.peers.state_dict().items()}
        keep = min(1 - 1 / (t + 1), 0.6)
        if means is None:
            means = now
        for name, value in now.items():
            if value.is_floating_point():
                means[name] = keep * means[name] + (1 - keep) * value
            else:
                means[name] = value
        found = method.mean_teachers.module.state_dict()
        assert found.keys() == means.keys()
        for name, value in means.items():
            assert (found[name] - value).abs().max() < 1e-7, (t, name)  # decay in float32
    assert any("running_var" in name for name in means)
    assert method.step == 4


def test_no_gradient_and_no_statistic_of_a_mean_teacher_moves_in_the_forward_pass():
    method = differing()
    before = {n: t.clone() for n, t in method.mean_teachers.state_dict().items()}
    views, labels = images(views=3)
    sum(method.losses(method.train()(views), labels, 80).values()).backward()
    assert all(p.grad is None for p in method.mean_teachers.parameters())
    after = method.mean_teachers.state_dict()
    assert all(torch.equal(t, before[n]) for n, t in after.items())


def test_mean_teachers_stay_in_eval_mode():
    method = make("pcl").train()
    assert method.peers.training
    assert not any(m.training for m in method.mean_teachers.modules())


def test_the_fused_classifier_trains_the_peers_from_labels_only():
    method = differing()
    views, labels = images(views=3)
    losses = method.losses(method(views), labels, 80)
    (first, *_), own = method.peers.trunk.parameters(), list(method.fused.parameters())
    assert all(g.abs().max() > 0 for g in gradients(losses["ce"], own))
    assert all(g.abs().max() == 0 for g in gradients(losses["fkd"] + losses["mkd"], own))
    z_f = method(views).extra["fused"]
    assert gradients(z_f.square().sum(), [first])[0].abs().max() > 0


def test_mean_teachers_and_peers_can_be_kept_and_the_first_mean_teacher_comes_first():
    method = make("pcl")
    numbers = range(3)
    expected = [f"mean_teacher{k}" for k in numbers] + [f"peer{k}" for k in numbers]
    assert list(method.students()) == expected
    for batch in toy_batches(3):
        method.training_step(batch, method.optimizers(sgd), 1)
    method.eval()
    (view,) = toy_batches(n=1)[0].views
    out = method([view])
    for name, (peers, k) in method.students().items():
        alone = peers.student(k)(view)
        own = name == f"peer{k}"
        assert torch.equal(alone, out.logits[k] if own else out.extra[name])
        assert torch.equal(alone, out.logits[k]) == own


def test_mean_teachers_that_were_never_updated_are_refused_after_an_epoch():
    method = make("pcl").double()
    views, labels = images(views=3)
    optimizer = sgd(method.parameters())
    out = method(views)
    minimize(method.losses(out, labels, 0), optimizer)
    with pytest.raises(InputError, match=r"never updated.*training_step.*update_mean_teachers"):
        method.losses(method(views), labels, 1)
    method.update_mean_teachers()
    assert method.losses(method(views), labels, 1).keys() == {"ce", "fkd", "mkd"}


def test_a_student_in_memory_can_be_trained_on():
    (peers, k), *_ = make("pcl").students().values()
    assert all(p.requires_grad for p in peers.student(k).parameters())


def test_one_peer_is_refused():
    with pytest.raises(InputError, match="at least 2 peers, not 1"):
        make("pcl", K=1)


@pytest.mark.parametrize("decay", [-0.1, 1.5])
def test_a_decay_that_is_no_share_is_refused(decay):
    with pytest.raises(InputError, match="decay is .*from 0 to 1"):
        make("pcl", decay=decay)


def test_the_mean_teachers_are_moving_averages_of_weights_and_statistics():
    method = make("pcl", decay=0.6)
    expected = {n: t.clone() for n, t in method.mean_teachers.module.state_dict().items()}
    for keep in (0.0, 0.5, 0.6, 0.6):
        for name, value in (values := method.peers.state_dict()).items():
            value += torch.randn_like(value) if value.is_floating_point() else 1
            if value.is_floating_point():
                expected[name] = keep * expected[name] + (1 - keep) * value
            else:
                expected[name] = value.clone()
        method.update_mean_teachers()
        means = method.mean_teachers.module.state_dict()
        torch.testing.assert_close(means, expected, rtol=1e-6, atol=1e-7)
        if keep == 0.0:
            assert_same_tensors(means, values)


def test_an_update_of_the_mean_teachers_asks_for_few_operations():
    method = make("pcl")
    with Dispatched() as seen:
        method.update_mean_teachers()
    assert seen.kernels < 12
    assert not seen.waits
