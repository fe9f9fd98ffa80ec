"""Which gradients leave when; that the sums are right, test_distributed.py tests in processes."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from toys import make, sgd, toy_batches

from codistill import TrainingState, distributed
from codistill.methods import gradient_sums
from codistill.methods.gradient_sums import GradientSums
from codistill.methods.minimize import Updates, minimize
from codistill.methods.optimizers import in_groups, shares_of


@pytest.fixture
def sent(monkeypatch):
    """The tensors of each message, and when it left."""
    messages, when = [], []

    def start(tensors):
        copies = [x.clone() for x in tensors]
        messages.append(copies)
        when.append("left")

        def finish():
            when.append("came")
            for tensor, copy in zip(tensors, copies, strict=True):
                tensor.copy_(2 * copy)

        return finish

    monkeypatch.setattr(distributed, "start_adding_up", start)
    monkeypatch.setattr(gradient_sums, "MESSAGE", 8 * 4)
    monkeypatch.setattr(gradient_sums, "_LAST", 3 * 4)
    return messages, when


def layers(*sizes):
    """One weight each, of so many numbers; the first one is used first."""
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(n)) for n in sizes]


def backward(weights, when=None):
    x = torch.ones(())
    for w in weights:
        x = (x * w).tanh().sum()
    x.backward()
    if when is not None:
        when.append("end")


def expected(weights):
    backward(weights)
    found = [2 * w.grad for w in weights]
    for w in weights:
        w.grad = None
    return found


def sizes(messages):
    return [[x.numel() for x in message] for message in messages]


def test_messages_leave_from_the_last_layer_on(sent):
    messages, when = sent
    weights = layers(2, 3, 4, 4, 7, 2)
    doubled = expected(weights)
    statistics = torch.ones(5)
    with GradientSums(weights) as sums:
        backward(weights, when)
    sums.finish([statistics])
    assert sizes(messages) == [[2], [7], [4], [3, 4], [2, 5]]
    for w, gradient in zip(weights, doubled, strict=True):
        assert torch.equal(w.grad, gradient)
    assert torch.equal(statistics, torch.full((5,), 2.0))
    assert when == ["left"] * 4 + ["end", "left"] + ["came"] * 5


def test_few_gradients_travel_in_one_message_after_the_backward_pass(sent):
    messages, when = sent
    weights = layers(2, 3, 3)
    with GradientSums(weights) as sums:
        backward(weights, when)
    sums.finish()
    assert sizes(messages) == [[2, 3, 3]]
    assert when == ["end", "left", "came"]


def test_a_weight_without_a_gradient_holds_back_what_comes_after_it(sent):
    messages, when = sent
    weights = layers(2, 8, 8, 8)
    with GradientSums(weights) as sums:
        backward([weights[0], weights[1], weights[3]], when)
    sums.finish()
    assert when == ["left", "end"] + ["left"] * 3 + ["came"] * 4
    assert sizes(messages) == [[8], [], [8], [2]]
    weights[2].requires_grad_(False)  # frozen: nobody waits for it
    when.clear()
    with GradientSums(weights) as sums:
        backward([weights[0], weights[1], weights[3]], when)
    assert when == ["left", "left", "end"]


def test_messages_are_the_same_where_an_earlier_part_made_the_gradient(sent):
    messages, _ = sent
    weights = layers(2, 8, 8, 8)
    weights[2].grad = torch.ones(8)  # other processes may make it in the last part
    with GradientSums(weights) as sums:
        backward([weights[0], weights[1], weights[3]])
    sums.finish()
    assert sizes(messages) == [[8], [8], [8], [2]]
    assert torch.equal(weights[2].grad, torch.full((8,), 2.0))


def test_messages_leave_in_one_order_whatever_is_ready_first(sent):
    messages, _ = sent
    weights = layers(2, 7, 8)
    with GradientSums(weights) as sums:
        backward([weights[2], weights[0], weights[1]])
    sums.finish()
    assert sizes(messages) == [[8], [7], [2]]


def test_a_step_without_sums_sends_nothing_afterwards(sent):
    messages, _ = sent
    weights = layers(2, 7, 8)
    with GradientSums(weights) as sums:
        backward(weights)
    sums.finish()
    messages.clear()
    backward(weights)
    assert messages == []


def test_a_gradient_that_changes_after_it_was_sent(sent):
    weights = layers(2, 7, 8)

    def block(x):
        return (x * weights[2]).tanh().sum()

    def twice():
        x = torch.ones((), requires_grad=True)
        return checkpoint(block, x, use_reentrant=True) + checkpoint(block, x, use_reentrant=True)

    with GradientSums(weights), pytest.raises(RuntimeError, match="use_reentrant=False"):
        twice().backward()


def test_a_backward_pass_of_others_may_change_gradients_after_it(sent, monkeypatch):
    messages, when = sent
    monkeypatch.setattr(distributed, "team", lambda: distributed.Group(0, 2))
    weights = layers(2, 7, 8)
    before = [w.detach().clone() for w in weights]

    def of_others(loss):
        loss.backward(retain_graph=True)
        loss.backward()  # an error where messages have left
        weights[1].grad.fill_(3.0)
        weights[2].grad = torch.full((8,), 5.0)
        when.append("end")

    with Updates(backward=of_others).active():
        loss = (weights[0].sum() * weights[1].sum() * weights[2].sum()).tanh()
        minimize({"loss": loss}, torch.optim.SGD(weights, lr=1.0))
    assert when == ["end"] + ["left"] * 3 + ["came"] * 3
    assert sizes(messages) == [[8], [7], [2]]
    torch.testing.assert_close(weights[1].data, before[1] - 6.0)
    torch.testing.assert_close(weights[2].data, before[2] - 10.0)


def test_groups_of_an_optimizer_do_not_hold_messages_back(sent, monkeypatch):
    _, when = sent
    monkeypatch.setattr(distributed, "team", lambda: distributed.Group(0, 2))
    method = make("dml", shared=0)
    convolution, norm, *_ = method.parameters()  # whose gradients come last
    norm.register_hook(lambda _: when.append("first layer"))
    state = TrainingState(method, in_groups(sgd, shares_of(method.peers, 1.0, decay_norms=False)))
    decayed, others = state.optimizers["main"].param_groups
    assert decayed["params"][0] is convolution
    assert others["params"][0] is norm
    with state.updates.active():
        method.training_step(next(iter(toy_batches())), state.optimizers, 0)
    assert when.index("first layer") > 0.9 * when.count("left")
