"""The networks are those of the papers, cut where they say they are."""

import hashlib

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from toys import tiny

from codistill import InputError, Network, build_network
from codistill.names import FAMILIES, NETWORKS
from codistill.networks import bottleneck_resnet, densenet, densenet_bc, resnet, vgg, wide_resnet

ONE_OF_EACH = list({family: name for name, (family, _) in reversed(NETWORKS.items())}.values())
"""The first network of each family."""

# Millions, such as "1.0", were rounded where they were published. "counted": the code publishes no
# count, but was built. Papers without a number are those of the network's module.
PUBLISHED = [
    ("resnet8", 100, "83,892", "ResNet-20, less 97,216 for each n, as between ResNet-20 and 56"),
    ("resnet14", 100, "181,108", "the same"),
    ("resnet20", 10, "0.27", "He et al., table 6"),
    ("resnet20", 100, "278,324", "imgclsmob"),
    ("resnet32", 100, "0.47", "chenyaofo/pytorch-cifar-models"),
    ("resnet44", 100, "0.67", "chenyaofo/pytorch-cifar-models"),
    ("resnet56", 10, "0.86", "chenyaofo/pytorch-cifar-models"),
    ("resnet56", 100, "861,620", "imgclsmob"),
    ("resnet110", 10, "1.7", "He et al., table 6"),
    ("resnet110", 100, "1,736,564", "imgclsmob"),
    ("resnet110_bottleneck", 100, "1,170,868", "DefangChen/OKDDip: resnet110, counted"),
    ("resnet164", 10, "1.7", "He et al., arXiv:1603.05027"),
    ("resnet164", 100, "1,727,284", "imgclsmob: ResNet-164(BN)"),
    ("wrn_16_1", 10, "0.2", "Zagoruyko, Komodakis, arXiv:1612.03928, table 1"),
    ("wrn_16_2", 100, "0.70", "Heo et al., arXiv:1904.01866: clovaai/overhaul-distillation"),
    ("wrn_16_4", 100, "2.77", "Heo et al."),
    ("wrn_16_8", 10, "11.0", "Zagoruyko, Komodakis, table 4"),
    ("okddip_wrn_20_8", 100, "6,871,220", "DefangChen/OKDDip: wide_resnet20_8, counted"),
    ("wrn_28_2", 10, "1.5", "Oliver et al., arXiv:1804.09170"),
    ("wrn_28_4", 100, "5.87", "Heo et al."),
    ("wrn_28_10", 10, "36.5", "Zagoruyko, Komodakis, table 4"),
    ("wrn_28_10", 10, "36,479,194", "imgclsmob"),
    ("wrn_40_1", 10, "0.6", "Zagoruyko, Komodakis, table 4"),
    ("wrn_40_2", 10, "2.2", "Zagoruyko, Komodakis, table 4"),
    ("vgg16", 10, "14,724,042", "kuangliu/pytorch-cifar: 14,728,266, less 4,224 biases, counted"),
    ("vgg19", 10, "20.04", "Liu et al., arXiv:1708.06519: Eric-mingjie/network-slimming"),
    ("densenet_40_12", 10, "1.0", "Huang et al., table 2"),
    ("densenet_bc_40_12", 10, "176,122", "imgclsmob"),
    ("densenet_bc_100_12", 10, "0.8", "Huang et al., table 2"),
    ("densenet_bc_100_12", 100, "800,032", "imgclsmob"),
    ("mobilenet_v1", 1000, "4.2", "Howard et al."),
    ("mobilenet_v1", 10, "3,217,226", "kuangliu/pytorch-cifar, counted"),
    ("mobilenet_v2", 100, "2.35", "chenyaofo/pytorch-cifar-models"),
    ("mobilenet_v2", 1000, "3,504,872", "torchvision"),
    ("shufflenet_v2", 100, "1.36", "chenyaofo/pytorch-cifar-models"),
    ("shufflenet_v2", 1000, "2,278,604", "torchvision"),
]


def shape_of(name, num_classes=100):
    """The network without memory for its weights."""
    with torch.device("meta"):
        return build_network(name, num_classes)


@pytest.mark.parametrize(("name", "num_classes", "published", "source"), PUBLISHED)
def test_a_network_has_the_parameters_of_the_paper(name, num_classes, published, source):
    count = sum(p.numel() for p in shape_of(name, num_classes).parameters())
    _, point, decimals = published.partition(".")
    assert published == (f"{count / 1e6:.{len(decimals)}f}" if point else f"{count:,}"), source


def test_every_network_is_compared_with_a_published_count():
    assert {name for name, *_ in PUBLISHED} == set(NETWORKS)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("resnet20", "40.82"),
        ("resnet32", "69.13"),
        ("resnet44", "97.44"),
        ("resnet56", "125.75"),
        ("mobilenet_v2", "88.09"),
        ("shufflenet_v2", "45.09"),
    ],
)
def test_a_network_has_the_multiply_adds_that_chenyaofo_publishes(name, millions):
    """In pytorch-cifar-models, for CIFAR-100."""
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        build_network(name, 100)(torch.empty(2, 3, 32, 32))
    assert f"{counter.get_total_flops() / 4e6:.2f}" == millions


@pytest.mark.long
@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("name", NETWORKS)
def test_channels_and_reductions_are_those_of_the_maps(name, size):
    network = shape_of(name)
    x = torch.empty(2, 3, size, size, device="meta")
    for stage, channels, reduction in zip(
        network.stages, network.channels, network.reductions, strict=True
    ):
        x = stage(x)
        assert x.shape == (2, channels, size // reduction, size // reduction)
    assert network.head(x).shape == (2, 100)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_stage_is_all_that_gives_one_size(name):
    reductions = shape_of(name).reductions
    assert reductions == tuple(2**s for s in range(len(reductions)))


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_gradients_reach_every_parameter(name):
    torch.manual_seed(0)
    network = build_network(name, 10)
    nn.functional.cross_entropy(network(torch.randn(4, 3, 32, 32)), torch.arange(4)).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_stage_leaves_its_input_as_it_was(name):
    """Peers share maps, and methods read them after the next stage has."""
    network = build_network(name, 10)
    x = torch.randn(2, 3, 32, 32)
    for stage in [*network.stages, network.head]:
        before = x.clone()
        y = stage(x)
        assert torch.equal(x, before)
        x = y


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("resnet8", "33bf5bb8"),
        ("resnet110_bottleneck", "7701ac97"),
        ("wrn_16_1", "337b674b"),
        ("vgg16", "74bbc202"),
        ("densenet_40_12", "eadcd5dc"),
        ("densenet_bc_40_12", "30e9de93"),
        ("mobilenet_v1", "136eb522"),
        ("mobilenet_v2", "83fe3f0f"),
        ("shufflenet_v2", "16f9819f"),
    ],
)
def test_weights_keep_their_names_so_that_files_of_before_can_be_read(name, digest):
    weights = shape_of(name).state_dict()
    text = "\n".join(f"{key} {tuple(weight.shape)}" for key, weight in weights.items())
    assert hashlib.sha256(text.encode()).hexdigest()[:8] == digest


def logits_of_seeded_weights(network):
    """Of one image, with weights that are drawn in the order in which the network has them."""
    torch.manual_seed(0)
    for key, weight in network.double().state_dict().items():
        if weight.dim() > 1:
            weight.normal_(std=weight[0].numel() ** -0.5)
        elif key.endswith(("bias", "running_mean")):
            weight.normal_(std=0.1)
        elif weight.is_floating_point():
            weight.uniform_(0.5, 1.5)
    return network.eval()(torch.randn(1, 3, 32, 32, dtype=torch.double))[0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet32", [1.553, 2.42886, -1.2378]),
        ("resnet110_bottleneck", [7.93635, 19.7491, -43.5571]),
        ("wrn_16_1", [-0.446923, 1.44578, -0.188539]),
        ("wrn_40_2", [-9.47083, -8.02385, -7.08852]),
        ("okddip_wrn_20_8", [-0.0499094, -0.34315, 0.330153]),
        ("vgg16", [0.151879, -0.342512, -0.346464]),
        ("densenet_bc_40_12", [-0.132806, 0.0819118, 0.278047]),
        ("densenet_bc_100_12", [0.046028, -0.157254, -0.0657274]),
        ("mobilenet_v1", [-0.11219, -0.0801932, -0.0103398]),
        ("mobilenet_v2", [0.266722, 0.0340476, 0.530301]),
        ("shufflenet_v2", [0.0474129, -0.128898, 0.0864588]),
    ],
)
def test_a_network_computes_what_the_code_it_follows_does(name, expected):
    """The first logits, recorded from DefangChen/OKDDip (ResNet, WRN-20-8, DenseNet-BC),
    HobbitLong/RepDistiller (WRN), kuangliu/pytorch-cifar (MobileNet, and VGG, less its biases and
    with our last pooling) and chenyaofo/pytorch-cifar-models (MobileNetV2, ShuffleNetV2).
    """
    logits = logits_of_seeded_weights(build_network(name, 100))
    assert logits[:3].tolist() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_convolutions_start_from_fan_out(name):
    torch.manual_seed(0)
    for conv in (m for m in build_network(name, 10).modules() if isinstance(m, nn.Conv2d)):
        expected = (2 / (conv.kernel_size[0] ** 2 * conv.out_channels)) ** 0.5
        spread = 4 / (2 * conv.weight.numel()) ** 0.5  # four standard errors
        assert conv.weight.std().item() == pytest.approx(expected, rel=spread)
        assert abs(conv.weight.mean().item()) < 4 * expected / conv.weight.numel() ** 0.5


@pytest.mark.parametrize("name", NETWORKS)
def test_convolutions_have_no_bias(name):
    convolutions = [m for m in shape_of(name).modules() if isinstance(m, nn.Conv2d)]
    assert [m for m in convolutions if m.bias is not None] == []


@pytest.mark.parametrize("depth", [2, 7, 9, 21, 31, -4])
def test_a_depth_that_no_resnet_has_is_refused(depth):
    with pytest.raises(InputError, match=rf"6n\+2 layers .* not {depth}"):
        resnet(depth, 10)


@pytest.mark.parametrize(("depth", "width"), [(4, 2), (9, 2), (17, 2), (16, 0)])
def test_a_shape_that_no_wide_resnet_has_is_refused(depth, width):
    with pytest.raises(InputError, match=r"6n\+4 layers"):
        wide_resnet(depth, width, 10)


@pytest.mark.parametrize(("depth", "width"), [(2, 1), (12, 1), (32, 1), (20, 0)])
def test_a_shape_that_no_resnet_of_bottlenecks_has_is_refused(depth, width):
    with pytest.raises(InputError, match=rf"9n\+2 layers .* not {depth} layers, width {width}"):
        bottleneck_resnet(depth, width, 10)


@pytest.mark.parametrize(
    ("build", "depth", "growth_rate", "layers"),
    [
        (densenet, 4, 12, "3n"),
        (densenet, 41, 12, "3n"),
        (densenet, 40, 0, "3n"),
        (densenet_bc, 4, 12, "6n"),
        (densenet_bc, 43, 12, "6n"),
        (densenet_bc, 40, 0, "6n"),
    ],
)
def test_a_shape_that_no_densenet_has_is_refused(build, depth, growth_rate, layers):
    with pytest.raises(InputError, match=rf"{layers}\+4 layers"):
        build(depth, growth_rate, 10)


def test_a_depth_that_no_vgg_has_is_refused():
    with pytest.raises(InputError, match="VGG has 16 or 19 layers, not 17"):
        vgg(17, 10)


def test_every_family_has_a_network():
    assert {family for family, _ in NETWORKS.values()} == set(FAMILIES)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("resnet33", "resnet32"), ("ResNet20", "resnet20"), ("wrn-16-2", "wrn_16_2")],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, hint):
    with pytest.raises(InputError, match=f"network '{name}' is not known: did you mean '{hint}'"):
        build_network(name, 10)


def test_a_name_near_none_is_answered_with_all():
    with pytest.raises(InputError, match=r"known: .*resnet32.*wrn_16_2"):
        build_network("zzz", 10)


def test_a_network_kept_elsewhere_is_called_with_the_classes():
    assert build_network("toys:tiny", 7).num_classes == 7


def test_what_is_no_network_is_refused():
    with pytest.raises(InputError, match="builtins:dict returned a dict, not a codistill.Network"):
        build_network("builtins:dict", 10)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_clone_owns_its_weights_and_buffers(name):
    network = build_network(name, 10)
    copy = network.clone()
    ours = {t.data_ptr() for t in network.state_dict().values()}
    assert ours.isdisjoint(t.data_ptr() for t in copy.state_dict().values())


def test_a_clone_predicts_the_same():
    network = tiny().eval()
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(network.clone()(x), network(x))


@pytest.mark.parametrize(
    ("channels", "reductions"), [((4,), (1, 2)), ((4, 8), (1,)), ((4, 8, 9), (1, 2, 4))]
)
def test_a_description_that_does_not_fit_the_stages_is_refused(channels, reductions):
    with pytest.raises(InputError, match="got 2 stages"):
        Network([nn.Identity(), nn.Identity()], channels, reductions, 10)


def test_a_network_without_stages_is_refused():
    with pytest.raises(InputError, match="got 0 stages"):
        Network([], [], [], 10)
