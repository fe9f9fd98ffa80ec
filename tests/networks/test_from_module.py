"""Networks made of classifiers that were not written for this."""

import copy

import pytest
import torch
import torch.nn.functional as F
from foreign import Chain, Skipping, conv
from safetensors.torch import load_file
from torch import nn

from codistill import InputError, Peers
from codistill.networks import from_module
from codistill.networks.build import build_network
from codistill.networks.cutting.cuts import Tapped
from codistill.networks.student import save_student
from codistill.runs.run import Run
from codistill.runs.student import load_student
from codistill.settings.config import Config


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
    assert {id(p) for p in module.parameters()} == held
    own = network.original_state_dict()
    assert own.keys() == module.state_dict().keys()
    assert all(torch.equal(own[n], x) for n, x in module.state_dict().items())
    back = network.from_original(module.state_dict())
    assert back.keys() == network.state_dict().keys()


def test_a_chain_is_cut_where_the_size_of_the_map_changes():
    network = from_module(Chain(), (32, 32))
    assert (network.channels, network.reductions) == ((4, 8, 12), (2, 4, 8))
    assert set(network.layouts) == {"NCHW"}
    out = Peers([network])([images()])
    assert [tuple(m.shape[1:]) for m in out.stages[0][1:]] == [(4, 16, 16), (8, 8, 8), (12, 4, 4)]


def test_dropout_that_is_a_child_is_a_link_of_the_chain():
    layers = [conv(3, 4, 2), nn.Dropout2d(0.5), conv(4, 8, 2), nn.AdaptiveAvgPool2d(1)]
    module = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.5), nn.Linear(8, 5))
    assert from_module(module, (32, 32)).channels == (4, 8)


def test_a_module_that_is_frozen_stays_so():
    network = from_module(Chain().requires_grad_(False), (32, 32))
    assert network.channels == (4, 8, 12)
    assert not any(p.requires_grad for p in network.parameters())


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
    assert all(p.grad is not None for p in twin.parameters())
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
    """Its logits are zero whatever is left out before it: here a dropout in code."""
    module = Chain(dropout=0.5)
    nn.init.zeros_(module.fc.weight)
    assert from_module(module, (32, 32)).layouts == ("tapped",)


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


def test_of_a_model_on_the_cpu_no_gpu_is_seeded(monkeypatch):
    """Another training of this process may draw from it."""
    for name in ("torch.cuda.manual_seed", "torch.cuda.manual_seed_all", "torch.manual_seed"):
        monkeypatch.setattr(name, lambda _: pytest.fail("a GPU is seeded"))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_rng_state", lambda _: pytest.fail("a GPU is asked"))
    from_module(Chain(), (32, 32))


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


class Unused(Chain):
    """A child that is never called, and a buffer of its own: a file of its weights has both."""

    def __init__(self):
        super().__init__()
        self.spare = nn.Linear(3, 3)
        self.register_buffer("centre", torch.ones(3))


class Counting(Chain):
    """What it computes in training depends on how often it did."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        y = super().forward(x) + 0.1 * self.count
        if self.training:
            self.count += 1
        return y


class Frozen(Chain):
    """A backbone that gets no gradients, by code."""

    def forward(self, x):
        with torch.no_grad():
            x = self.blocks(self.stem(x)).mean(dim=(2, 3))
        return self.fc(x)


class Skips(Chain):
    """Layer dropout, which the random numbers of one run need not show."""

    def forward(self, x):
        x = self.blocks[0](self.stem(x))
        if not (self.training and torch.rand(()) < 0.01):
            x = self.blocks[1](x)
        return self.fc(self.blocks[2](x).mean(dim=(2, 3)))


class LooksAtSize(Chain):
    """Small images are spared a step."""

    def forward(self, x):
        return super().forward(F.avg_pool2d(x, 2) if x.shape[-1] > 100 else x)


class OtherwiseInEval(Halves):
    def forward(self, x):
        y = super().forward(x)
        return y if self.training else y + 1


class Doubles(Halves):
    """Its classifier starts at zero, which hides this in the logits; gradients tell."""

    def forward(self, x):
        return self._head(2 * self._features(x))


class CountsItself(Halves):
    """A buffer that moves in neither half."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.count += 1
        return super().forward(x)


class Twice(Chain):
    """A child that is called twice."""

    def forward(self, x):
        x = self.blocks[0](self.stem(x))
        x = self.blocks[1](self.blocks[1](x))
        return self.fc(self.blocks[2](x).mean(dim=(2, 3)))


@pytest.mark.parametrize(
    "build",
    [Unused, Counting, Frozen, Skips, LooksAtSize, Twice, Doubles, OtherwiseInEval, CountsItself],
)
def test_what_a_chain_would_lose_is_not_cut(build):
    module = build()
    size = (128, 128) if build is LooksAtSize else (32, 32)
    network = from_module(module, size)
    assert network.layouts == ("tapped",)
    assert network.original_state_dict().keys() == module.state_dict().keys()


def test_a_cut_is_tried_at_the_size_it_is_for():
    """At 64 pixels the last map is a single place, and pooling seems to do nothing."""
    stages = [conv(3 if s == 0 else 8, 8, 2) for s in range(6)]

    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.stages = nn.Sequential(*stages)
            self.fc = nn.Linear(8, 5)

        def forward(self, x):
            return self.fc(self.stages(x).mean(dim=(2, 3)))

    network = from_module(Deep(), (128, 128))
    assert network.reductions == (2, 4, 8, 16, 32, 64)
    assert network(torch.randn(2, 3, 128, 128)).shape == (2, 5)


class Tied(nn.Module):
    """One 1x1 convolution under two names, and one weight in two convolutions."""

    def __init__(self):
        super().__init__()
        self.stem = conv(3, 8, 2)
        self.a = nn.Conv2d(8, 8, 1)
        self.b = nn.Conv2d(8, 8, 1)
        self.b.weight = self.a.weight
        self.again = self.a
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))

    def forward(self, x):
        return self.head(self.b(self.a(self.stem(x)).relu()))


def test_tied_weights_keep_all_their_names_and_can_be_written(tmp_path):
    module = Tied()
    network = from_module(module, (32, 32)).eval()
    assert network.original_state_dict().keys() == module.state_dict().keys()
    about = {"network": "test_from_module:tied", "classes": list("abcdefghij")}
    save_student(tmp_path / "student.safetensors", network, about)
    student = load_student(tmp_path / "student.safetensors", trust_code=True)
    assert torch.equal(student(images()), network(images()))
    Tied().load_state_dict(load_file(tmp_path / "student.safetensors"))
    config = Config(
        network="test_from_module:tied", method={"name": "dml"}, epochs=1, out=str(tmp_path / "run")
    )
    assert len([*Run.create(config).train()]) == 1


def tied(num_classes):
    return Tied()


class WritesOnItsInput(nn.Module):
    """Every part activates in place what the part before it, or the caller, still holds."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.SiLU(inplace=True), nn.Conv2d(3, 4, 3, 2, 1))
        self.stage = Block(4, 8)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        return self.fc(self.flatten(self.pool(self.stage(self.first(x)))))


class Block(nn.Sequential):
    def __init__(self, d_in, d_out):
        super().__init__(nn.SiLU(inplace=True), nn.Conv2d(d_in, d_out, 3, 2, 1))

    def forward(self, x):
        return super().forward(x)


@pytest.mark.parametrize("shared", [0, 1])
def test_a_part_that_writes_on_its_input_spoils_nothing_for_the_other_peers(shared):
    torch.manual_seed(0)
    peers = Peers([from_module(WritesOnItsInput(), (32, 32)) for _ in range(3)], shared)
    x = images()
    out = peers([x])
    assert torch.equal(x, images())
    for k in range(3):
        assert torch.allclose(peers.student(k)(images()), out.logits[k], atol=1e-6)


class Square(nn.Module):
    """Maps (B, H, W, D) with as many channels as places on a side, where images have 64 pixels."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, 4)
        self.permute = Permute(0, 2, 3, 1)
        self.mix = nn.Linear(16, 16)
        self.pool = PoolLast()
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        return self.fc(self.pool(self.mix(self.permute(self.patch(x)))))


@pytest.mark.parametrize("side", [32, 64, 96])
def test_a_layout_is_not_mistaken_where_sides_and_channels_are_equal(side):
    module = Square().eval()
    network = from_module(copy.deepcopy(module), (side, side)).eval()
    assert (network.channels, network.reductions, network.layouts) == ((16,), (4,), ("NHWC",))
    (feature_map,) = Peers([network]).eval()([images(side)]).feature_maps
    expected = module.mix(module.permute(module.patch(images(side)))).permute(0, 3, 1, 2)
    assert torch.allclose(feature_map, expected, atol=1e-6)


def test_scores_of_classes_are_no_feature_map():
    """The last convolution of a SqueezeNet classifies, and is the head's."""
    module = nn.Sequential(
        conv(3, 8, 2), nn.Conv2d(8, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    network = from_module(module, (32, 32))
    assert network.channels == (8,)
    assert [type(m) for m in network.head.modules() if isinstance(m, nn.Conv2d)]


class Attention(nn.Module):
    """Tokens go through an inner layer that has as many, for another batch and another purpose."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 8, 8)
        self.heads_first = nn.Identity()
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = self.patch(x)
        keys = self.heads_first(x.repeat(4, 1, 1, 1)).mean()
        return self.fc((x + keys).mean(dim=(2, 3)))


def test_an_inner_tensor_of_another_batch_is_no_map():
    network = from_module(Attention(), (32, 32))
    assert (network.layouts, network.stages[0].name) == (("tapped",), "patch")


class TwoInTraining(Chain):
    def forward(self, x):
        y = super().forward(x)
        return (y, y) if self.training else y


class Contiguous(Chain):
    def forward(self, x):
        return self.fc(self.blocks(self.stem(x)).view(len(x), -1)[:, :12])


class ReturnsPair(Chain):
    def forward(self, x):
        return super().forward(x), x


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (ReturnsPair(), r"ReturnsPair returns tuple.*logits \(2, C\)"),
        (nn.Sequential(nn.Conv2d(3, 4, 3)), r"Sequential returns \(2, 4, 30, 30\)"),
        (nn.Sequential(nn.Linear(7, 3)), "Sequential cannot take images of 32x32"),
        (TwoInTraining(), "returns tuple for 2 images in train mode.*auxiliary outputs off"),
        (Contiguous(), "Contiguous cannot take images of 32x32: view size is not compatible"),
        (nn.Sequential(nn.LazyConv2d(3, 3)), "Sequential cannot be examined"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3072, 5)), "no feature map"),
    ],
)
def test_what_cannot_be_used_is_named(module, message):
    with pytest.raises(InputError, match=message):
        from_module(module, (32, 32))


def test_any_classifier_can_be_named_as_a_callable():
    assert build_network("foreign:Chain", 7).channels == (4, 8, 12)
    with pytest.raises(InputError, match="a classifier of 5 classes, not 7"):
        build_network("test_from_module:always_five", 7)


def always_five(num_classes):
    return Chain(5)
