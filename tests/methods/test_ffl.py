"""FFL against the paper, written out in float64 with no helper of the library."""

import functools
import math

import pytest
import torch
import torch.nn.functional as F
from toys import make, sgd, tiny, toy_batches

from codistill import Batch, InputError, Peers, evaluate, fit, minimize
from codistill.methods.adapters import MatchSize
from codistill.methods.fusion import FusionModule
from codistill.methods.papers.ffl import FFL
from codistill.networks import resnet
from codistill.networks.build import build_network
from codistill.networks.peers import Outputs

CLASSES = 5
paper_sgd = functools.partial(
    torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4
)


class Reference:
    """FFL of K ResNet-8 that share their first stages, from a copy of a method's weights.

    Functions of tensors only. `weights` has the names of the library, and nothing else of it.
    """

    def __init__(self, method, K, shared, ensemble_teaches=True, fused_teaches=True):
        self.weights = {n: p.detach().clone() for n, p in method.named_parameters()}
        for w in self.weights.values():
            w.requires_grad_()
        self.K, self.shared = K, shared
        self.ensemble_teaches, self.fused_teaches = ensemble_teaches, fused_teaches
        fusion = [w for n, w in self.weights.items() if n.startswith("fusion.")]
        peers = [w for n, w in self.weights.items() if not n.startswith("fusion.")]
        how = {"lr": 0.1, "momentum": 0.9, "nesterov": True}
        self.optimizers = (
            torch.optim.SGD(peers, weight_decay=1e-4, **how),
            torch.optim.SGD(fusion, weight_decay=1e-5, **how),
        )

    def conv(self, x, name, **how):
        return F.conv2d(x, self.weights[f"{name}.weight"], **how)

    def norm(self, x, name):
        mean = x.mean((0, 2, 3), keepdim=True)
        variance = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
        gain, bias = (self.weights[f"{name}.{w}"].view(1, -1, 1, 1) for w in ("weight", "bias"))
        return (x - mean) / (variance + 1e-5).sqrt() * gain + bias

    def linear(self, x, name):
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def block(self, x, name, stride):
        y = self.norm(self.conv(x, f"{name}.conv1", stride=stride, padding=1), f"{name}.bn1")
        y = self.norm(self.conv(y.relu(), f"{name}.conv2", padding=1), f"{name}.bn2")
        if stride > 1:
            x = self.conv(x, f"{name}.shortcut.0", stride=stride)
            x = self.norm(x, f"{name}.shortcut.1")
        return (x + y).relu()

    def feature_map(self, x, k):
        for s in range(3):
            shared = s < self.shared
            stage = f"peers.trunk.{s}" if shared else f"peers.branches.{k}.{s - self.shared}"
            if s == 0:
                x = self.norm(self.conv(x, f"{stage}.0", padding=1), f"{stage}.1").relu()
            x = self.block(x, f"{stage}.3" if s == 0 else f"{stage}.0", 1 if s == 0 else 2)
        return x

    def logits(self, images):
        """z_1 ... z_K, z_f."""
        maps = [self.feature_map(images, k) for k in range(self.K)]
        z = [self.linear(m.mean((2, 3)), f"peers.heads.{k}.2") for k, m in enumerate(maps)]
        x = torch.cat(maps, dim=1)
        x = self.conv(x, "fusion.depthwise", padding=1, groups=x.shape[1])
        x = self.norm(x, "fusion.bn1").relu()
        x = self.norm(self.conv(x, "fusion.pointwise"), "fusion.bn2").relu()
        return z, self.linear(x.mean((2, 3)), "fusion.fc")

    def losses(self, images, labels, epoch, T=3.0, R=80):
        z, z_f = self.logits(images)
        z_e = sum(z) / self.K
        w = math.exp(-5 * (1 - min(epoch, R) / R) ** 2)
        losses = {"ce": sum(cross_entropy(z_i, labels) for z_i in [*z, z_f])}
        if self.ensemble_teaches:
            losses["ekd"] = w * kl(z_f, z_e.detach(), T)
        if self.fused_teaches:
            losses["fkd"] = w * sum(kl(z_k, z_f.detach(), T) for z_k in z)
        return losses

    def step(self, images, labels, epoch):
        """Moves the weights once; returns the losses and the gradients that moved them."""
        losses = self.losses(images, labels, epoch)
        gradients = torch.autograd.grad(sum(losses.values()), list(self.weights.values()))
        for w, g in zip(self.weights.values(), gradients, strict=True):
            w.grad = g
        for optimizer in self.optimizers:
            optimizer.step()
        return losses, dict(zip(self.weights, gradients, strict=True))


def log_softmax(z):
    z = z - z.detach().max(dim=1, keepdim=True).values
    return z - z.exp().sum(dim=1, keepdim=True).log()


def cross_entropy(z, labels):
    return -sum(log_softmax(z)[i, label] for i, label in enumerate(labels)) / len(labels)


def kl(student, teacher, T):
    log_t, log_s = log_softmax(teacher / T), log_softmax(student / T)
    return T * T * (log_t.exp() * (log_t - log_s)).sum() / len(student)


def make_resnets(K=2, shared=2, **options):
    torch.manual_seed(0)
    peers = Peers([resnet(8, CLASSES) for _ in range(K)], shared)
    return FFL(peers, **options).double().train()


def random_batches(n, B=8):
    rng = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(B, 3, 8, 8, generator=rng, dtype=torch.float64),
            torch.randint(CLASSES, (B,), generator=rng),
        )
        for _ in range(n)
    ]


def compare(K, shared, epochs, **options):
    """One step for each epoch number: all losses and gradients are within 1e-9."""
    method = make_resnets(K, shared, **options)
    reference = Reference(method, K, shared, **options)
    optimizers = method.optimizers(paper_sgd)
    for (images, labels), epoch in zip(random_batches(len(epochs)), epochs, strict=True):
        expected, gradients = reference.step(images, labels, epoch)
        losses = method.training_step(Batch([images], labels), optimizers, epoch)
        assert losses.keys() == expected.keys()
        for name in losses:
            assert abs(losses[name] - expected[name]) < 1e-9, (name, epoch)
        for name, p in method.named_parameters():
            assert (p.grad - gradients[name]).abs().max() < 1e-9, (name, epoch)
    return method, reference


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("shared", [0, 1, 2, 3])
def test_every_loss_and_gradient_is_that_of_the_paper(K, shared):
    compare(K, shared, epochs=[40])


@pytest.mark.long
def test_twenty_steps_of_sgd_are_those_of_the_paper():
    method, reference = compare(2, 2, epochs=range(0, 100, 5))
    for name, p in method.named_parameters():
        assert (p - reference.weights[name]).abs().max() < 1e-9, name


@pytest.mark.long
def test_twenty_steps_of_independent_peers_are_those_of_the_paper():
    compare(2, 0, epochs=range(0, 100, 5))


@pytest.mark.parametrize("ensemble_teaches", [False, True])
@pytest.mark.parametrize("fused_teaches", [False, True])
def test_an_ablation_has_the_gradients_of_the_terms_that_are_left(ensemble_teaches, fused_teaches):
    compare(2, 2, epochs=[80, 80], ensemble_teaches=ensemble_teaches, fused_teaches=fused_teaches)


@pytest.mark.parametrize(
    ("options", "terms"),
    [
        ({}, {"ce", "ekd", "fkd"}),
        ({"ensemble_teaches": False}, {"ce", "fkd"}),
        ({"fused_teaches": False}, {"ce", "ekd"}),
        ({"ensemble_teaches": False, "fused_teaches": False}, {"ce"}),
    ],
)
def test_a_term_that_is_off_is_absent(options, terms):
    method = make("ffl", **options)
    (batch,) = toy_batches(n=1)
    assert method.losses(method(batch.views), batch.labels, 80).keys() == terms


def test_another_temperature_and_ramp_up_go_into_the_formula():
    method = make_resnets(temperature=2.0, ramp_up=10)
    reference = Reference(method, K=2, shared=2)
    ((images, labels),) = random_batches(1)
    expected = reference.losses(images, labels, epoch=4, T=2.0, R=10)
    losses = method.losses(method([images]), labels, 4)
    for name in expected:
        assert abs(losses[name] - expected[name]) < 1e-9, name


@pytest.mark.parametrize(
    ("epoch", "weight"), [(0, math.exp(-5)), (40, math.exp(-1.25)), (80, 1.0), (299, 1.0)]
)
@pytest.mark.parametrize("term", ["ekd", "fkd"])
def test_distillation_ramps_up(term, epoch, weight):
    method = make_resnets()
    ((images, labels),) = random_batches(1)
    out = method([images])
    full = method.losses(out, labels, 80)
    losses = method.losses(out, labels, epoch)
    assert abs(losses[term] - weight * full[term]) < 1e-12
    assert losses["ce"] == full["ce"]


def test_a_ramp_up_of_0_gives_distillation_its_full_weight_at_once():
    z, z_f = torch.randn(2, 5, 4), torch.randn(5, 4)
    out = Outputs(z, [], {"ensemble": z.mean(dim=0), "fused": z_f})
    labels = torch.zeros(5, dtype=torch.long)
    at_once = make("ffl", K=2, ramp_up=0).losses(out, labels, 0)
    assert at_once == make("ffl", K=2).losses(out, labels, 80)


# Where gradients flow


def gradients(term, epoch=80):
    """The gradient of one loss term by weight; absent where there is none."""
    method = make("ffl", K=2)
    (batch,) = toy_batches(n=1)
    method.losses(method(batch.views), batch.labels, epoch)[term].backward()
    return {n: p.grad for n, p in method.named_parameters() if p.grad is not None}


def test_no_gradient_reaches_the_ensemble_when_it_teaches():
    z = torch.randn(2, 5, 4, requires_grad=True)
    z_f = torch.randn(5, 4, requires_grad=True)
    out = Outputs(z, [], {"ensemble": z.mean(dim=0), "fused": z_f})
    losses = make("ffl", K=2).losses(out, torch.zeros(5, dtype=torch.long), 80)
    assert torch.autograd.grad(losses["ekd"], z, allow_unused=True) == (None,)


def test_no_gradient_reaches_the_fused_classifier_when_it_teaches():
    assert [n for n in gradients("fkd") if n.startswith("fusion.")] == []


def test_no_gradient_reaches_the_peers_heads_when_the_ensemble_teaches():
    assert [n for n in gradients("ekd") if n.startswith("peers.heads.")] == []


@pytest.mark.parametrize("part", ["trunk.0.0", "branches.0.0.0", "branches.1.0.0"])
def test_the_fused_classifier_trains_the_peers(part):
    method = make("ffl", K=2)
    (batch,) = toy_batches(n=1)
    F.cross_entropy(method(batch.views).extra["fused"], batch.labels).backward()
    assert method.get_parameter(f"peers.{part}.weight").grad.abs().max() > 0


# The fusion module and its optimizer


def test_the_fusion_module_of_two_resnet32_has_16228_parameters():
    fusion = FusionModule([64, 64], [4, 4], 100)
    assert sum(p.numel() for p in fusion.parameters()) == 16_228


def test_two_branches_of_resnet32_have_832920_parameters():
    peers = Peers([build_network("resnet32", 100) for _ in range(2)], shared=2)
    assert sum(p.numel() for p in peers.parameters()) == 832_920


def test_the_fusion_module_starts_from_fan_out_with_channels_counted_whole():
    torch.manual_seed(0)
    fusion = FusionModule([64, 64], [4, 4], 100)
    assert fusion.depthwise.weight.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.08)
    assert fusion.pointwise.weight.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.05)


def weight_decays(method):
    (optimizer,) = method.optimizers(paper_sgd).values()
    names = {p: n for n, p in method.named_parameters()}
    return [(names[p], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]]


def test_every_weight_is_in_the_optimizer_once():
    method = make("ffl")
    assert sorted(n for n, _ in weight_decays(method)) == sorted(
        n for n, _ in method.named_parameters()
    )


def test_the_fusion_module_has_a_weight_decay_of_its_own():
    for name, decay in weight_decays(make("ffl")):
        assert decay == (1e-5 if name.startswith("fusion.") else 1e-4), name


def test_the_weight_decay_of_the_fusion_module_can_be_chosen():
    decays = dict(weight_decays(make("ffl", fusion_weight_decay=3e-4)))
    assert decays["fusion.fc.weight"] == 3e-4


# Peers that differ


@pytest.mark.long
def test_peers_of_different_width_and_map_size_learn_together():
    torch.manual_seed(0)
    networks = [tiny(width=4), tiny(width=6, strides=(1, 2, 1)), tiny(width=3, strides=(2, 2, 2))]
    method = FFL(Peers(networks))
    before = {n: p.detach().clone() for n, p in method.named_parameters()}
    fit(method, toy_batches(), epochs=16, make_optimizer=sgd)
    assert [n for n, p in method.named_parameters() if torch.equal(p, before[n])] == []
    metrics = evaluate(method, toy_batches(seed=1))
    assert min(v for k, v in metrics.items() if k.startswith("top1/")) > 90, metrics


def test_the_fused_mixture_is_as_wide_as_the_widest_peer():
    fusion = FusionModule([8, 24], [4, 4], 5)
    assert fusion.depthwise.weight.shape[0] == 32
    assert fusion.pointwise.weight.shape[:2] == (24, 32)


def test_larger_maps_are_brought_to_the_smallest_size():
    match = MatchSize([3, 4, 5], [2, 4, 8])
    maps = [torch.randn(2, d, size, size) for d, size in ((3, 16), (4, 8), (5, 4))]
    assert [tuple(x.shape) for x in match(maps)] == [(2, 3, 4, 4), (2, 4, 4, 4), (2, 5, 4, 4)]


def test_a_larger_map_goes_through_a_convolution_as_wide_as_the_ratio():
    match = MatchSize([3, 4], [2, 8])
    shapes = [tuple(p.shape) for p in match.parameters() if p.ndim == 4]
    assert shapes == [(3, 3, 4, 4)]


def test_a_ratio_that_is_no_whole_number_is_matched_too():
    match = MatchSize([3, 4], [2, 3])
    maps = [torch.randn(2, 3, 6, 9), torch.randn(2, 4, 4, 6)]
    assert [tuple(x.shape) for x in match(maps)] == [(2, 3, 4, 6), (2, 4, 4, 6)]


def test_maps_of_one_size_pass_untouched():
    match = MatchSize([3, 4], [4, 4])
    maps = [torch.randn(2, 3, 4, 4), torch.randn(2, 4, 4, 4)]
    assert [a is b for a, b in zip(match(maps), maps, strict=True)] == [True, True]
    assert list(match.parameters()) == []


# What is refused


def test_one_peer_is_refused():
    with pytest.raises(InputError, match="FFL .* needs at least 2 peers, not 1"):
        FFL(Peers([tiny()]))


@pytest.mark.parametrize(
    "option", [{"temperature": 0.0}, {"ramp_up": -1}, {"fusion_weight_decay": -1e-5}]
)
def test_a_number_out_of_range_is_refused_by_name(option):
    (name,) = option
    with pytest.raises(InputError, match=f"{name} is"):
        make("ffl", **option)


def test_ffl_reports_peers_ensemble_and_fused():
    (batch,) = toy_batches(n=1)
    classifiers = make("ffl")(batch.views).classifiers
    assert list(classifiers) == ["peer0", "peer1", "peer2", "ensemble", "fused"]


def test_the_objective_is_the_sum_of_the_terms():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    minimize({"a": x[0] * 3, "b": x[1] * 5}, torch.optim.SGD([x], lr=1.0))
    assert x.tolist() == [-2.0, -3.0]
