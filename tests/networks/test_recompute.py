"""Stages that are computed again in the backward pass: the same numbers, less memory."""

import pytest
import torch
from toys import C, assert_same_tensors, can_share, make, sgd, tiny, toy_batches

from codistill import Peers, build_network
from codistill.analysis.cost.summary import summarise_method
from codistill.methods import Independent
from codistill.names import METHODS
from codistill.runs.finished import recipe_of
from codistill.settings.build_method import build_method
from codistill.settings.config import Config


def five_steps(name, shared, recompute, precision=torch.float64):
    """Losses, gradients of the last step, and the state after it."""
    method = make(name, shared, dropout=0.2).to(precision).train()
    method.peers.recompute = recompute
    optimizers = method.optimizers(sgd)
    method.begin_epoch(1, None)
    torch.manual_seed(0)
    losses = []
    for batch in toy_batches(method.views, n=5, B=16):
        batch = batch._replace(views=[view.to(precision) for view in batch.views])
        losses.append(method.training_step(batch, optimizers, 1))
    gradients = {n: p.grad for n, p in method.named_parameters() if p.grad is not None}
    return losses, gradients, method.state_dict()


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "shared"), [(name, s) for name in METHODS for s in (0, 2) if can_share(name, s)]
)
def test_losses_gradients_weights_and_statistics_are_the_same_to_the_bit(name, shared):
    plain, saving = (five_steps(name, shared, recompute) for recompute in (False, True))
    for ours, theirs in zip(saving[0], plain[0], strict=True):
        assert_same_tensors(ours, theirs)
    assert_same_tensors(saving[1], plain[1])
    assert_same_tensors(saving[2], plain[2])


def saved(recompute):
    """Numbers that the forward pass of a ResNet-8 keeps for the backward pass, weights left out."""
    torch.manual_seed(0)
    peers = Peers([build_network("resnet8", C)], recompute=recompute)
    method, kept = Independent(peers).train(), {}

    def keep(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes() // 4
        return x

    x = torch.randn(8, 3, 32, 32)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        out = method([x])
    weights = sum(p.numel() for p in method.parameters())
    return sum(kept.values()) - weights + sum(x.numel() for x in out.stages[0][1:])


def test_less_is_kept_for_the_backward_pass():
    assert saved(recompute=True) < saved(recompute=False) / 3


def test_nothing_is_computed_twice_without_gradients():
    method = Independent(Peers([tiny()], recompute=True))
    calls = []
    method.peers.branches[0][0].register_forward_hook(lambda *_: calls.append(1))
    (batch,) = toy_batches(n=1)
    with torch.no_grad():
        method.train()(batch.views)
    method.eval()(batch.views)
    assert len(calls) == 2


def test_a_run_may_ask_for_it():
    config = Config(network="resnet8", recompute=True, method={"name": "dml"})
    assert build_method(config, 10, (32, 32)).peers.recompute
    config.recompute = False
    assert not build_method(config, 10, (32, 32)).peers.recompute


def test_the_estimate_of_memory_is_that_without():
    method = Independent(Peers([tiny()]))
    plain = summarise_method(method, (16, 16), 8)
    method.peers.recompute = True
    assert summarise_method(method, (16, 16), 8) == plain
    assert method.peers.recompute


def test_it_is_no_part_of_what_is_compared():
    compared = [recipe_of(Config(recompute=recompute), "", {}, []) for recompute in (False, True)]
    assert compared[0] == compared[1]


def test_a_graph_that_is_kept_is_gone_through_as_often_as_wanted():
    peers = Peers([tiny()], recompute=True).train()
    loss = peers([torch.randn(4, 3, 8, 8)]).logits.square().sum()
    gradients = [
        torch.autograd.grad(loss, list(peers.parameters()), retain_graph=True) for _ in range(2)
    ]
    assert all(map(torch.equal, *gradients))
