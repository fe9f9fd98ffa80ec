"""FLOPs of a forward pass, against the literature and against each other."""

import torch

from codistill.methods import FFL, Independent
from codistill.methods.flops import forward_flops
from codistill.networks import build_network
from codistill.networks.peers import Peers


def peers_of(*names: str, shared: int = 0) -> Peers:
    return Peers([build_network(name, 10) for name in names], shared)


def test_flops_are_those_of_the_literature() -> None:
    flops = forward_flops(Independent(peers_of("resnet32")), (32, 32))
    assert round(flops["peer0"] / 2e6, 1) == 69.1
    assert flops["peer0"] == flops["peers"] == flops["method"]


def test_what_peers_share_counts_once_and_what_a_method_adds_counts() -> None:
    apart = forward_flops(Independent(peers_of("resnet8", "resnet20")), (16, 16))
    assert apart["peer0"] < apart["peer1"]
    assert apart["peers"] == apart["peer0"] + apart["peer1"]
    method = FFL(peers_of("resnet8", "resnet8", shared=2))
    shared = forward_flops(method, (16, 16))
    assert shared["peer0"] == shared["peer1"] == apart["peer0"]
    assert shared["peer0"] < shared["peers"] < 2 * shared["peer0"]
    assert shared["method"] > shared["peers"]  # the fusion module


def test_counting_changes_nothing() -> None:
    method = FFL(peers_of("resnet8", "resnet8")).train()
    method.peers.heads[0].eval()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    modes = [module.training for module in method.modules()]
    numbers = torch.get_rng_state()
    forward_flops(method, (8, 8))
    torch.testing.assert_close(dict(method.state_dict()), before, rtol=0, atol=0)
    assert [module.training for module in method.modules()] == modes
    assert torch.equal(torch.get_rng_state(), numbers)
    assert all(p.grad is None for p in method.parameters())
