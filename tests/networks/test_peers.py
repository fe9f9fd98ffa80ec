"""Peers: what is shared, what each sees, and what is refused."""

import pytest
import torch
from torch import nn
from toys import tiny

from codistill import InputError, Network, Peers
from codistill.networks import resnet

IMAGES = torch.randn(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def make_peers(K=2, shared=0):
    torch.manual_seed(0)
    return Peers([tiny() for _ in range(K)], shared).eval()


@pytest.mark.parametrize("shared", [0, 1, 2, 3])
def test_branches_have_the_stages_that_the_trunk_has_not(shared):
    peers = make_peers(3, shared)
    assert len(peers.trunk) == shared
    assert [len(branch) for branch in peers.branches] == [3 - shared] * 3


@pytest.mark.parametrize("shared", [0, 1, 2, 3])
def test_the_first_stages_are_shared_and_the_others_are_not(shared):
    stages = make_peers(2, shared)([IMAGES[0]]).stages
    same = [a is b for a, b in zip(*stages, strict=True)]
    assert same == [s <= shared for s in range(4)]


def test_the_trunk_is_that_of_the_first_network():
    networks = [tiny(), tiny()]
    first = networks[0].stages[0]
    assert Peers(networks, shared=1).trunk[0] is first


@pytest.mark.parametrize("shared", [0, 2, 3])
def test_a_peer_is_the_network_it_was_given(shared):
    torch.manual_seed(0)
    networks = [tiny() for _ in range(2)]
    alone = [network.clone().eval() for network in networks]
    for s in range(shared):
        alone[1].stages[s] = alone[0].stages[s]
    out = Peers(networks, shared).eval()([IMAGES[0]])
    for k, network in enumerate(alone):
        assert torch.equal(out.logits[k], network(IMAGES[0]))


def test_sharing_every_stage_leaves_a_head_per_peer():
    out = make_peers(2, shared=3)([IMAGES[0]])
    assert out.feature_maps[0] is out.feature_maps[1]
    assert not torch.equal(out.logits[0], out.logits[1])


def test_peers_of_different_architecture_stand_side_by_side():
    out = Peers([tiny(width=4), tiny(width=5, strides=(2, 2, 2))])([IMAGES[0]])
    assert [tuple(m.shape[1:]) for m in out.feature_maps] == [(16, 2, 2), (20, 1, 1)]


def test_the_first_stages_of_different_networks_are_shared_where_they_agree():
    peers = Peers([tiny(strides=(1, 2, 2)), tiny(strides=(1, 2, 1))], shared=2)
    assert [m.shape[2] for m in peers([IMAGES[0]]).feature_maps] == [2, 4]


@pytest.mark.parametrize("shared", [0, 1])
def test_peer_k_sees_view_k(shared):
    peers = make_peers(3, shared)
    out = peers(list(IMAGES))
    for k in range(3):
        view = IMAGES[k % 2]
        assert torch.equal(out.stages[k][0], view)
        assert torch.equal(out.logits[k], peers.student(k)(view))


def test_the_trunk_is_computed_once_for_all_peers():
    peers = make_peers(3, shared=2)
    calls = []
    peers.trunk[1].register_forward_hook(lambda *_: calls.append(1))
    peers([IMAGES[0]])
    assert len(calls) == 1


def test_the_ensemble_is_the_mean_of_the_logits():
    out = make_peers(3)([IMAGES[0]])
    expected = (out.logits[0] + out.logits[1] + out.logits[2]) / 3
    torch.testing.assert_close(out.extra["ensemble"], expected)


def test_one_peer_has_no_ensemble():
    assert make_peers(1)([IMAGES[0]]).extra == {}


def test_stages_hold_the_image_and_every_map():
    out = make_peers(2, shared=1)([IMAGES[0]])
    assert [len(maps) for maps in out.stages] == [4, 4]
    assert [tuple(m.shape) for m in out.stages[1]] == [
        (4, 3, 8, 8),
        (4, 4, 8, 8),
        (4, 8, 4, 4),
        (4, 16, 2, 2),
    ]


def test_embeddings_are_feature_maps_averaged_over_space():
    out = make_peers(2)([IMAGES[0]])
    assert torch.equal(out.embeddings[1], out.stages[1][-1].mean(dim=(2, 3)))


def test_a_student_changes_with_none_of_the_peers_weights():
    peers = make_peers(2, shared=1)
    student = peers.student(1)
    before = student(IMAGES[0])
    with torch.no_grad():
        for p in peers.parameters():
            p.zero_()
    assert torch.equal(student(IMAGES[0]), before)


@pytest.mark.parametrize("training", [False, True])
def test_a_student_is_in_the_mode_of_its_peers(training):
    modes = {m.training for m in make_peers(2).train(training).student(0).modules()}
    assert modes == {training}


@pytest.mark.parametrize("k", [-1, 2])
def test_a_student_that_is_not_there_is_refused(k):
    with pytest.raises(InputError, match=f"no peer {k}: the peers are 0 to 1"):
        make_peers(2).student(k)


# What is refused


def test_no_network_is_refused():
    with pytest.raises(InputError, match="at least one network"):
        Peers([])


@pytest.mark.parametrize("shared", [-1, 4])
def test_more_shared_stages_than_there_are_is_refused(shared):
    with pytest.raises(InputError, match=f"shared is {shared}: these networks have 3 stages"):
        make_peers(2, shared)


def test_stages_of_different_width_are_not_shared():
    with pytest.raises(InputError, match="stage 0 of network 1 differs .* use shared <= 0"):
        Peers([tiny(width=4), tiny(width=5)], shared=2)


def test_stages_of_different_depth_are_not_shared():
    with pytest.raises(InputError, match="stage 0 of network 1 differs"):
        Peers([resnet(8, 10), resnet(14, 10)], shared=1)


def test_stages_of_different_stride_are_not_shared():
    with pytest.raises(InputError, match="stage 1 of network 2 differs .* use shared <= 1"):
        Peers([tiny(), tiny(), tiny(strides=(1, 1, 2))], shared=2)


def test_different_classes_are_refused():
    with pytest.raises(InputError, match="0 has 4 classes and network 1 has 7"):
        Peers([tiny(4), tiny(7)])


@pytest.mark.parametrize("shared", [0, 1])
def test_the_same_network_twice_is_refused(shared):
    network = tiny()
    with pytest.raises(InputError, match="networks 0 and 1 hold the same weights"):
        Peers([network, network], shared)


def test_networks_with_one_stage_in_common_are_refused():
    first, second = tiny(), tiny()
    stages = [*second.stages[:2], first.stages[2]]
    third = Network(stages, second.channels, second.reductions, 4, nn.Flatten())
    with pytest.raises(InputError, match="networks 0 and 1 hold the same weights"):
        Peers([first, third])
