"""Networks made of classifiers that were not written for this."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from codistill import InputError, Peers
from codistill.networks import build_network, from_module
from codistill.networks.from_module import Tapped


def conv(d_in, d_out, stride=1):
    layers = nn.Conv2d(d_in, d_out, 3, stride, padding=1), nn.BatchNorm2d(d_out), nn.ReLU()
    return nn.Sequential(*layers)


class Chain(nn.Module):
    """Children in turn, with pooling written as code between the last two."""

    def __init__(self, num_classes=5, dropout=0.0):
        super().__init__()
        self.fc = nn.Linear(12, num_classes)  # defined first, called last
        self.stem = conv(3, 4, 2)
        self.blocks = nn.Sequential(conv(4, 8, 2), conv(8, 8), conv(8, 12, 2))
        self.unused = nn.Linear(3, 3)
        self.dropout = dropout

    def forward(self, x):
        x = self.blocks(self.stem(x)).mean(dim=(2, 3))
        return self.fc(F.dropout(x, self.dropout, self.training))


class Skipping(Chain):
    """A connection over several children, which no chain has."""

    def forward(self, x):
        x = self.stem(x)
        y = self.blocks[1](self.blocks[0](x))
        y = y + F.interpolate(x, y.shape[2:]).repeat(1, 2, 1, 1)
        return self.fc(self.blocks[2](y).mean(dim=(2, 3)))


class Tokens(nn.Module):
    """A transformer with a class token, in timm's two halves, whose classifier starts at zero."""

    def __init__(self, num_classes=5, D=8, halves=True):
        super().__init__()
        self.patch = nn.Conv2d(3, D, 8, 8)
        self.cls = nn.Parameter(torch.randn(1, 1, D))
        layer = nn.TransformerEncoderLayer(D, 2, 16, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(D, num_classes)
        nn.init.zeros_(self.head.weight)
        if halves:
            self.forward_features, self.forward_head = self._features, self._head

    def _features(self, x):
        x = self.patch(x).flatten(2).mT
        return self.encoder(torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1))

    def _head(self, x):
        return self.head(x[:, 0])

    def forward(self, x):
        return self._head(self._features(x))


class Halves(Tokens):
    def __init__(self):
        super().__init__(halves=False)

    forward_features, forward_head = Tokens._features, Tokens._head


class ChannelsLast(nn.Module):
    """Maps (B, H, W, D), as Swin has them."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 6, 4, 4)
        self.permute = Permute(0, 2, 3, 1)
        self.norm = nn.LayerNorm(6)
        self.mix = nn.Linear(6, 6)
        self.back = Permute(0, 3, 1, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        x = self.mix(self.norm(self.permute(self.patch(x))))
        return self.fc(self.flatten(self.pool(self.back(x))))


class Permute(nn.Module):
    def __init__(self, *dims):
        super().__init__()
        self.dims = dims

    def forward(self, x):
        return x.permute(*self.dims)


def images(side=32, n=3):
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("build", [Chain, Skipping, Halves, Tokens, ChannelsLast])
@pytest.mark.parametrize("training", [False, True])
def test_a_network_computes_what_its_module_does(build, training):
    module = build()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn_like(p))
    network = from_module(copy.deepcopy(module), (32, 32)).train(training)
    module.train(training)
    x = images()
    assert torch.allclose(network(x), module(x), atol=1e-5)


@pytest.mark.parametrize("build", [Chain, Skipping, Halves, Tokens, ChannelsLast])
def test_every_weight_is_taken_over_under_its_own_name(build):
    module = build()
    network = from_module(module, (32, 32))
    held = {id(p) for p in network.parameters()}
    called = {n: p for n, p in module.named_parameters() if not n.startswith("unused")}
    assert {id(p) for p in called.values()} <= held
    for name, value in network.original_state_dict().items():
        assert torch.equal(value, module.state_dict()[name])


def test_a_chain_is_cut_where_the_size_of_the_map_changes():
    network = from_module(Chain(), (32, 32))
    assert (network.channels, network.reductions) == ((4, 8, 12), (2, 4, 8))
    assert set(network.layouts) == {"NCHW"}
    out = Peers([network])([images()])
    assert [tuple(m.shape[1:]) for m in out.stages[0][1:]] == [(4, 16, 16), (8, 8, 8), (12, 4, 4)]


def test_networks_that_are_chains_share_a_trunk():
    torch.manual_seed(0)
    peers = Peers([from_module(Chain(), (32, 32)) for _ in range(2)], shared=2)
    out = peers([images()])
    assert torch.equal(out.stages[0][2], out.stages[1][2])
    assert not torch.equal(out.logits[0], out.logits[1])
    assert torch.allclose(peers.student(1).eval()(images()), peers.eval()([images()]).logits[1])


def test_code_between_children_that_only_training_shows_is_not_lost():
    module = Chain(dropout=0.5)
    network = from_module(module, (32, 32))
    assert isinstance(network.stages[0], Tapped)
    x, results = images(), []
    for f in (network.train(), module.train()):
        torch.manual_seed(3)
        results.append(f(x))
    assert torch.equal(*results)


def test_a_module_that_cannot_be_cut_runs_as_a_whole_and_tells_its_map():
    module = Skipping()
    network = from_module(module, (32, 32))
    assert network.layouts == ("tapped",)
    assert (network.channels, network.reductions) == ((12,), (8,))
    out = Peers([network])([images()])
    module.train()
    x = module.stem(images())
    y = module.blocks[1](module.blocks[0](x)) + F.interpolate(x, (8, 8)).repeat(1, 2, 1, 1)
    assert torch.allclose(out.feature_maps[0], module.blocks[2](y), atol=1e-5)
    with pytest.raises(InputError, match=r"network 0 runs as a whole.*shared=0"):
        Peers([from_module(Skipping(), (32, 32)) for _ in range(2)], shared=1)


def test_a_tapped_map_and_the_logits_belong_to_one_run():
    """Gradients of both reach the weights, and a copy taps its own."""
    network = from_module(Skipping(), (32, 32))
    twin = network.clone()
    (feature_map, logits) = twin.stages[0](images())
    (feature_map.sum() + logits.sum()).backward()
    assert all(p.grad is not None for n, p in twin.named_parameters() if "unused" not in n)
    assert all(p.grad is None for p in network.parameters())


def test_tokens_become_maps_without_those_that_stand_for_no_place():
    module = Halves()
    network = from_module(module, (32, 32)).eval()
    assert (network.channels, network.reductions) == ((8,), (8,))
    assert network.layouts == ("tokens",)
    (feature_map,) = Peers([network]).eval()([images()]).feature_maps
    tokens = module.eval()._features(images())
    assert feature_map.shape == (3, 8, 4, 4)
    for row in range(4):
        for column in range(4):
            assert torch.equal(feature_map[:, :, row, column], tokens[:, 1 + 4 * row + column])


def test_a_classifier_that_starts_at_zero_hides_nothing():
    """Its logits are zero whatever is left out before it."""
    network = from_module(Halves(), (32, 32))
    assert {type(m).__name__ for m in network.stages} == {"Part"}
    names = {name.split(".")[0] for name in network.names.values()}
    assert names == {"patch", "cls", "encoder", "head"}


def test_maps_with_the_channels_last_are_turned():
    network = from_module(ChannelsLast(), (32, 32)).eval()
    assert network.layouts == ("NCHW",)  # it turns them back before it pools
    module = ChannelsLast()
    module.back, module.pool = nn.Identity(), PoolLast()
    network = from_module(module, (32, 32)).eval()
    assert (network.layouts, network.channels) == (("NHWC",), (6,))
    (feature_map,) = Peers([network]).eval()([images()]).feature_maps
    last = module.eval().mix(module.norm(module.permute(module.patch(images()))))
    assert torch.equal(feature_map, last.permute(0, 3, 1, 2))


class PoolLast(nn.Module):
    def forward(self, x):
        return x.mean(dim=(1, 2))


def test_the_module_and_the_random_numbers_are_left_as_they_were():
    for build in (Chain, Skipping, Halves):
        module = build().train()
        module.eval() if build is Chain else None
        before = copy.deepcopy(module.state_dict())
        modes = [m.training for m in module.modules()]
        state = torch.get_rng_state()
        from_module(module, (32, 32))
        assert torch.equal(torch.get_rng_state(), state)
        assert [m.training for m in module.modules()] == modes
        assert all(torch.equal(before[n], x) for n, x in module.state_dict().items())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
        assert all(p.grad is None for p in module.parameters())


def test_images_need_not_be_square():
    network = from_module(Chain(), (32, 64))
    assert network.reductions == (2, 4, 8)
    x = torch.randn(2, 3, 32, 64)
    assert Peers([network])([x]).feature_maps[0].shape == (2, 12, 4, 8)


def test_reductions_are_those_at_the_size_that_is_asked_for():
    """Without padding, a map is smaller than its strides say."""
    module = nn.Sequential(nn.Conv2d(3, 4, 5, 2), nn.ReLU(), nn.Conv2d(4, 8, 5, 2))
    module = nn.Sequential(*module, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    assert from_module(copy.deepcopy(module), (224, 224)).reductions == (2, 4)
    assert from_module(module, (16, 16)).reductions == (3, 16)


class ReturnsPair(Chain):
    def forward(self, x):
        return super().forward(x), x


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (ReturnsPair(), r"ReturnsPair returns tuple.*logits \(2, C\)"),
        (nn.Sequential(nn.Conv2d(3, 4, 3)), r"Sequential returns \(2, 4, 30, 30\)"),
        (nn.Sequential(nn.Linear(7, 3)), "Sequential cannot take images of 32x32"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3072, 5)), "no feature map"),
    ],
)
def test_what_cannot_be_used_is_named(module, message):
    with pytest.raises(InputError, match=message):
        from_module(module, (32, 32))


def test_any_classifier_can_be_named_as_a_callable():
    assert build_network("test_from_module:Chain", 7).channels == (4, 8, 12)
    with pytest.raises(InputError, match="a classifier of 5 classes, not 7"):
        build_network("test_from_module:always_five", 7)


def always_five(num_classes):
    return Chain(5)
