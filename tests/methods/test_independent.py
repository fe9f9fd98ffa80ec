"""Independent peers learn as each would alone."""

import functools

import torch
import torch.nn.functional as F
from toys import sgd, steps, tiny, toy_batches

from codistill import Batch, Peers
from codistill.methods import Independent

plain_sgd = functools.partial(torch.optim.SGD, lr=0.1)


def networks():
    torch.manual_seed(0)
    return [tiny(width=4).double(), tiny(width=5, strides=(2, 2, 1)).double()]


def batches(n=3):
    return [Batch([v.double() for v in b.views], b.labels) for b in toy_batches(n=n)]


def test_a_peer_gets_the_gradient_that_it_would_get_alone():
    method, alone = Independent(Peers(networks())), networks()
    (batch,) = batches(n=1)
    method.training_step(batch, method.optimizers(plain_sgd), 0)
    for k, network in enumerate(alone):
        F.cross_entropy(network(batch.views[0]), batch.labels).backward()
        peer = [*method.peers.branches[k].parameters(), *method.peers.heads[k].parameters()]
        for p, q in zip(peer, network.parameters(), strict=True):
            assert (p.grad - q.grad).abs().max() < 1e-12


def test_training_together_equals_training_apart():
    together = Independent(Peers(networks()))
    steps(together, batches(), sgd)
    for k, network in enumerate(networks()):
        alone = Independent(Peers([network]))
        steps(alone, batches(), sgd)
        theirs = alone.peers.student(0).state_dict()
        for name, value in together.peers.student(k).state_dict().items():
            assert (value - theirs[name]).abs().max() < 1e-9, name


def test_one_peer_alone_has_no_ensemble():
    (batch,) = batches(n=1)
    assert list(Independent(Peers(networks()[:1]))(batch.views).classifiers) == ["peer0"]


def test_several_peers_are_evaluated_as_an_ensemble_too():
    (batch,) = batches(n=1)
    classifiers = Independent(Peers(networks()))(batch.views).classifiers
    assert list(classifiers) == ["peer0", "peer1", "ensemble"]
