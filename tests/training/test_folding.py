"""Batch normalisation is folded into convolutions for an evaluation, where that is safe."""

import copy
import ctypes

import pytest
import torch
from torch import nn
from toys import C, assert_same_tensors, can_share, make, toy_batches

from codistill import Batch, Network, Peers, build_network, evaluate
from codistill.methods import FFL, Independent
from codistill.names import METHODS
from codistill.training.folding import folded, folded_network

every_method = pytest.mark.parametrize(
    ("name", "shared"), [(name, s) for name in METHODS for s in (0, 2) if can_share(name, s)]
)
N = 160  # images in a batch


def some_images(n=N, size=8):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def lived(module):
    """A module in eval mode whose batch normalisations have statistics and weights of their own."""
    rng = torch.Generator().manual_seed(1)
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            for x in (m.running_mean, m.running_var, m.weight, m.bias):
                x.data.copy_(torch.rand(x.shape, generator=rng) + 0.5)
    return module.eval()


def alone(*stages, d=4, head=None):
    """A peer of one stage, alone."""
    network = Network([nn.Sequential(*stages)], [d], [1], C, head)
    return lived(Independent(Peers([network])))


def normalisations(module):
    return sum(isinstance(m, nn.BatchNorm2d) for m in module.modules())


@torch.inference_mode()
def fold(method, images=None, count=512):
    return folded(method, [some_images() if images is None else images], count)


@torch.no_grad()
def assert_same_classifiers(first, second, size=8):
    images = some_images(64, size)
    ours, theirs = first([images]).classifiers, second([images]).classifiers
    assert ours.keys() == theirs.keys()
    for name, logits in ours.items():
        torch.testing.assert_close(logits, theirs[name], rtol=1e-4, atol=1e-4)


def test_a_network_is_folded_like_a_method():
    network, images = lived(build_network("resnet8", C)), some_images(20)
    assert folded_network(network, images, 511) is network
    with torch.inference_mode():
        fast = folded_network(network, images)
        assert normalisations(fast) == 0 < normalisations(network)
        torch.testing.assert_close(fast(images), network(images), rtol=1e-4, atol=1e-4)


@every_method
def test_no_normalisation_is_left_and_every_classifier_is_what_it_was(name, shared):
    method = lived(make(name, shared))
    fast = fold(method)
    assert normalisations(fast.peers) == 0 < normalisations(method.peers)
    assert_same_classifiers(fast, method)


@pytest.mark.long
@pytest.mark.parametrize("name", ["resnet8", "wrn_16_1", "mobilenet_v2"])
def test_networks_are_folded_where_a_normalisation_follows_a_convolution(name):
    method = lived(Independent(Peers([build_network(name, C)])))
    fast = fold(method, some_images(size=32))
    assert normalisations(fast) < normalisations(method)
    assert_same_classifiers(fast, method, 32)


@pytest.mark.long
def test_timms_normalisation_is_folded_and_its_activation_stays():
    method = lived(Independent(Peers([build_network("timm/mobilenetv3_small_050", C)])))
    assert {type(m).__name__ for m in method.modules() if isinstance(m, nn.BatchNorm2d)} == {
        "BatchNormAct2d"
    }
    fast = fold(method, some_images(n=16, size=32))
    assert normalisations(fast) == 0
    assert_same_classifiers(fast, method, 32)


def test_the_fusion_module_is_folded_too():
    assert normalisations(fold(lived(make("ffl")))) == 0


def test_the_method_itself_is_left_alone_and_its_weights_are_not_copied():
    method = lived(make("ffl"))
    before = copy.deepcopy(method.state_dict())
    fast = fold(method)
    assert_same_tensors(method.state_dict(), before)
    heads = zip(fast.peers.heads, method.peers.heads, strict=True)
    assert all(a is not b and a[-1].weight is b[-1].weight for a, b in heads)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in method.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in fast.modules())


def test_few_images_are_not_worth_it():
    method = lived(make("ffl"))
    assert fold(method, count=511) is method
    assert fold(method, some_images(100)) is not method


class TwoReaders(nn.Module):
    """What the convolution returns is read by something else than its normalisation, too."""

    def __init__(self, other):
        super().__init__()
        self.conv, self.bn, self.other = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), other

    def forward(self, x):
        y = self.conv(x)
        return self.bn(y) + self.other(y)


class Changed(nn.Module):
    """What the convolution returns is changed before it is normalised."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.conv(x)
        y += 1
        return self.bn(y)


class Twice(nn.Module):
    """One normalisation after two convolutions, or two after one."""

    def __init__(self, convs, bns):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 4, 3) for _ in range(convs))
        self.bns = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(bns))

    def forward(self, x):
        maps = [conv(x) for conv in self.convs]
        return sum(bn(y) for bn in self.bns for y in maps)


class Doubling(nn.BatchNorm2d):
    """Not what its base is."""

    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    "stage",
    [
        TwoReaders(nn.Identity()),
        TwoReaders(nn.ReLU()),
        TwoReaders(nn.BatchNorm2d(4)),
        Changed(),
        Twice(2, 1),
        Twice(1, 2),
        nn.Sequential(nn.Conv2d(3, 4, 3), Doubling(4)),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
        nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 1))
        ),
    ],
)
def test_what_cannot_be_folded_is_left_as_it_is(stage):
    if isinstance(stage, nn.Sequential) and getattr(stage[1], "running_mean", 0) is None:
        method = Independent(Peers([Network([stage], [4], [1], C)])).eval()
    else:
        method = alone(stage)
    assert fold(method) is method


def test_what_is_registered_under_two_names_is_replaced_under_both():
    class Aliased(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = self.again = nn.BatchNorm2d(4)

        def forward(self, x):
            return self.again(x)

    method = alone(nn.Conv2d(3, 4, 3), Aliased())
    fast = fold(method)
    assert normalisations(fast) == 0
    assert_same_classifiers(fast, method)


def test_a_copy_that_disagrees_is_not_believed():
    class ReadsItsNormalisation(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x):
            y = self.bn(self.conv(x))
            return y if isinstance(self.bn, nn.BatchNorm2d) else y + 1

    method = alone(ReadsItsNormalisation())
    assert fold(method) is method


def test_a_method_that_cannot_be_copied_is_evaluated_as_it_is():
    method = lived(make("ffl"))
    method.note = (torch.ones(1, requires_grad=True) * 2,)  # no leaf
    assert fold(method) is method
    assert "top1/fused" in evaluate(method, [Batch([some_images()], torch.zeros(N).long())])


def test_an_evaluation_folds_and_measures_the_same():
    runs = []

    class Noted(FFL):
        def forward(self, views):
            runs.append(normalisations(self))
            return super().forward(views)

    method = lived(make("ffl"))
    method.__class__ = Noted
    batches = toy_batches(n=4, B=N)
    metrics = evaluate(method, batches)
    assert runs[-4:] == [0, 0, 0, 0]
    runs.clear()
    assert metrics == pytest.approx(evaluate(method, iter(batches)), rel=1e-5)
    assert min(runs) > 0  # how many images there will be is not known, so it is not worth it


def test_who_watches_a_method_with_hooks_sees_all_images_of_an_evaluation_once():
    method = lived(make("ffl"))
    seen = []
    method.peers.heads[0].register_forward_hook(lambda module, args, out: seen.append(len(out)))
    evaluate(method, toy_batches(n=4, B=N))
    assert seen == [N] * 4


class ReadsAWeight(nn.Module):
    """Attention by the size of a normalisation's weights, as some networks have it."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.bn(self.conv(x)) * self.bn.weight.abs().sum()


class WholeGroups(nn.Module):
    """Takes batches that can be divided by 32."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.bn(self.conv(x))
        return y.view(-1, 32, *y.shape[1:]).flatten(0, 1)


class Pointer(nn.Module):
    """Holds what cannot be copied."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.pointer = ctypes.pointer(ctypes.c_int(3))

    def forward(self, x):
        return self.bn(self.conv(x))


@pytest.mark.parametrize("stage", [ReadsAWeight, WholeGroups, Pointer])
def test_what_the_trial_does_not_stand_is_evaluated_as_it_is(stage):
    method = alone(stage())
    assert fold(method) is method
    assert "top1/peer0" in evaluate(method, toy_batches(n=4, B=N))


def test_a_convolution_that_stays_in_train_mode_is_not_folded():
    method = alone(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    first = next(m for m in method.modules() if isinstance(m, nn.Conv2d))
    first.train()
    fast = fold(method)
    assert normalisations(fast) == 1
    assert_same_classifiers(fast, method)


@pytest.mark.parametrize("name", ["ffl", "pcl", "afd"])
def test_an_evaluation_that_folds_leaves_no_trace(name):
    method = make(name, dropout=0.2).train()
    method.peers.heads[1].eval()
    modes = {n: m.training for n, m in method.named_modules()}
    state, rng = copy.deepcopy(method.state_dict()), torch.get_rng_state()
    evaluate(method, toy_batches(n=4, B=N))
    assert_same_tensors(method.state_dict(), state)
    assert {n: m.training for n, m in method.named_modules()} == modes
    assert torch.equal(torch.get_rng_state(), rng)
    assert not any(p.is_inference() for p in method.parameters())


def test_an_evaluation_in_bf16_is_near_that_in_float32():
    method = lived(make("ffl"))
    batches = toy_batches(n=4, B=N)
    fp32, bf16 = evaluate(method, batches), evaluate(method, batches, "bf16")
    assert bf16 == pytest.approx(fp32, rel=0.05)
    assert all(bf16[key] != fp32[key] for key in fp32 if key.startswith("nll/"))
