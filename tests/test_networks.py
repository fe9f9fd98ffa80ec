"""The networks are those of the papers, cut where they say they are."""

import pytest
import torch
from torch import nn
from toys import tiny

from codistill import InputError, Network, build_network
from codistill.names import NETWORKS
from codistill.networks import resnet, wide_resnet


def shape_of(name, num_classes=100):
    """The network without memory for its weights."""
    with torch.device("meta"):
        return build_network(name, num_classes)


@pytest.mark.parametrize(
    ("name", "num_classes", "parameters"),
    [
        ("resnet20", 10, 272_474),
        ("resnet20", 100, 278_324),
        ("resnet32", 100, 472_756),
        ("resnet44", 100, 667_188),
        ("resnet56", 100, 861_620),
        ("resnet110", 100, 1_736_564),
        ("wrn_16_2", 100, 703_284),
        ("wrn_40_2", 100, 2_255_156),
        ("wrn_28_10", 100, 36_536_884),
    ],
)
def test_a_network_has_the_parameters_of_the_paper(name, num_classes, parameters):
    network = shape_of(name, num_classes)
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize("name", NETWORKS)
def test_channels_and_reductions_are_those_of_the_maps(name):
    network = shape_of(name)
    x = torch.empty(2, 3, 32, 32, device="meta")
    for stage, channels, reduction in zip(
        network.stages, network.channels, network.reductions, strict=True
    ):
        x = stage(x)
        assert x.shape == (2, channels, 32 // reduction, 32 // reduction)
    assert network.head(x).shape == (2, 100)
    assert len(network.stages) == 3


@pytest.mark.parametrize("build", [lambda: resnet(8, 10), lambda: wide_resnet(10, 2, 10)])
def test_convolutions_start_from_fan_out(build):
    torch.manual_seed(0)
    for conv in (m for m in build().modules() if isinstance(m, nn.Conv2d)):
        expected = (2 / (conv.kernel_size[0] ** 2 * conv.out_channels)) ** 0.5
        spread = 4 / (2 * conv.weight.numel()) ** 0.5  # four standard errors
        assert conv.weight.std().item() == pytest.approx(expected, rel=spread)
        assert abs(conv.weight.mean().item()) < 4 * expected / conv.weight.numel() ** 0.5


@pytest.mark.parametrize("family", [lambda: resnet(8, 10), lambda: wide_resnet(10, 1, 10)])
def test_convolutions_have_no_bias(family):
    assert [m for m in family().modules() if isinstance(m, nn.Conv2d) and m.bias is not None] == []


@pytest.mark.parametrize("depth", [2, 7, 9, 21, 31, -4])
def test_a_depth_that_no_resnet_has_is_refused(depth):
    with pytest.raises(InputError, match=rf"6n\+2 layers .* not {depth}"):
        resnet(depth, 10)


@pytest.mark.parametrize(("depth", "width"), [(4, 2), (9, 2), (17, 2), (16, 0)])
def test_a_shape_that_no_wide_resnet_has_is_refused(depth, width):
    with pytest.raises(InputError, match=r"6n\+4 layers"):
        wide_resnet(depth, width, 10)


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


def test_a_clone_owns_its_weights_and_buffers():
    network = tiny()
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
