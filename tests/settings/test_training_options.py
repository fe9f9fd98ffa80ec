"""Optimizers by name, shares of the learning rate, and what a configuration refuses."""

import functools

import pytest
import torch
from toys import make, toy_batches

from codistill import Config, InputError, TrainingState
from codistill.methods.optimizers import Shares, in_groups, optimizer_by_name
from codistill.settings.build_method import make_optimizer, update_options


def groups_of(config, method=None):
    method = method or make("dml", K=2)
    return method.optimizers(make_optimizer(config, method))["main"].param_groups


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sgd", "SGD"),
        ("adamw", "AdamW"),
        ("nadam", "NAdam"),
        ("rmsprop", "RMSprop"),
        ("timm/lion", "Lion"),
        ("timm/lamb", "Lamb"),
    ],
)
def test_an_optimizer_is_found_by_its_name_and_learns(name, kind):
    config = Config(optimizer=name, lr=1e-3, weight_decay=0.01)
    method = make("dml", K=2)
    state = TrainingState(method, make_optimizer(config, method))
    (optimizer,) = state.optimizers.values()
    assert type(optimizer).__name__ == kind
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (1e-3, 0.01)
    before = method.state_dict()["peers.heads.0.2.weight"].clone()
    for batch in toy_batches(n=2):
        method.training_step(batch, state.optimizers, 0)
    assert not torch.equal(before, method.state_dict()["peers.heads.0.2.weight"])


def test_options_reach_the_optimizer():
    (group,) = groups_of(Config(optimizer="adamw", optimizer_options={"betas": [0.5, 0.6]}))
    assert list(group["betas"]) == [0.5, 0.6]
    (group,) = groups_of(Config(momentum=0.7, nesterov=False, optimizer_options={"dampening": 0.1}))
    assert (group["momentum"], group["nesterov"], group["dampening"]) == (0.7, False, 0.1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adam_w", {}, "optimizer 'adam_w' is not known: did you mean 'adamw'.*timm/NAME"),
        ("lbfgs", {}, "optimizer 'lbfgs' is not known"),
        ("timm/loin", {}, "timm has no optimizer 'loin': did you mean 'lion'"),
        ("timm/adahessian", {}, "needs second derivatives"),
        ("adamw", {"beta": 1}, r"'adamw' does not take these options \(beta=1\)"),
        ("adamw", {"betas": [2.0, 0.9]}, "does not take these options .*Invalid beta"),
        ("adamw", {"betas": 0.9}, r"does not take these options \(betas=0.9\)"),
    ],
)
def test_what_is_no_optimizer_is_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        groups_of(Config(optimizer=name, optimizer_options=options))


def test_an_optimizer_of_timm_without_timm_says_what_installs_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(ImportError, match=r"pip install 'codistill\[vision\]'"):
        optimizer_by_name("timm/lion")


@pytest.mark.parametrize("shared", [0, 1])
def test_earlier_stages_have_smaller_shares_of_the_learning_rate(shared):
    method = make("dml", K=2, shared=shared)
    rates = {}
    for group in groups_of(Config(lr=0.1, layer_decay=0.5), method):
        rates |= dict.fromkeys(map(id, group["params"]), group["lr"])
    assert len(rates) == len(list(method.parameters()))
    peers = method.peers
    for k in range(2):
        stages = [*peers.trunk, *peers.branches[k], peers.heads[k]]
        for s, stage in enumerate(stages):
            for weight in stage.parameters():
                assert rates[id(weight)] == pytest.approx(0.1 * 0.5 ** (3 - s))


def test_a_methods_own_modules_have_the_whole_rate_and_its_own_groups_their_decay():
    method = make("afd", K=2, shared=0, adversarial_weight_decay=0.3)
    config = Config(lr=0.1, layer_decay=0.5, decay_norms=False)
    optimizers = method.optimizers(make_optimizer(config, method))
    assert {g["weight_decay"] for g in optimizers["extractors"].param_groups} == {0.3}
    assert {g["lr"] for g in optimizers["extractors"].param_groups} == {2e-5}
    ffl = make("ffl", K=2)
    own = {id(p) for n, p in ffl.named_parameters() if not n.startswith("peers.")}
    rates = {id(p): g["lr"] for g in groups_of(config, ffl) for p in g["params"]}
    assert {rates[p] for p in own} == {0.1}


def test_a_group_keeps_the_decay_that_it_has():
    matrix, vector = torch.zeros(2, 2), torch.zeros(2)
    shares = {matrix: Shares(1.0, 1.0), vector: Shares(1.0, 0.0)}
    make = in_groups(functools.partial(torch.optim.SGD, lr=0.1, weight_decay=0.2), shares)
    decays = [g["weight_decay"] for g in make([matrix, vector]).param_groups]
    assert decays == [0.2, 0.0]
    own = make([{"params": [matrix, vector], "weight_decay": 0.3}])
    assert [g["weight_decay"] for g in own.param_groups] == [0.3, 0.3]
    given = make([matrix, vector], weight_decay=0.4)
    assert [g["weight_decay"] for g in given.param_groups] == [0.4, 0.4]


def test_norms_and_biases_can_go_without_decay():
    decays = {p.ndim > 1: set() for p in make("dml").parameters()}
    for group in groups_of(Config(weight_decay=0.02, decay_norms=False)):
        for weight in group["params"]:
            decays[weight.ndim > 1].add(group["weight_decay"])
    assert decays == {True: {0.02}, False: {0.0}}


def test_by_default_there_is_one_group():
    assert len(groups_of(Config())) == 1


def test_the_options_of_steps_are_those_of_the_configuration():
    given = {"clip_norm": 2.0, "accumulate": 3, "ema": 0.9, "freeze": 1, "freeze_epochs": 4}
    options = update_options(Config(**given))
    assert {name: getattr(options, name) for name in given} == given


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"accumulate": 65}, "parts of a batch of 128 have to hold two images"),
        ({"cuda_graphs": True, "precision": "fp16"}, "give --precision bf16 or fp32"),
        ({"cuda_graphs": True, "schedule_unit": "step"}, "--schedule_unit epoch"),
        ({"optimizer": " "}, "optimizer is empty"),
        ({"ema": 1.0}, "ema is 1.0: it has to be at least 0 and below 1"),
        ({"clip_norm": 0.0}, "clip_norm is 0.0: it has to be above 0"),
        ({"layer_decay": 1.5}, "layer_decay is 1.5"),
        ({"patience": 0}, "patience is 0: it has to be above 0"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Config(**settings)


def test_adamw_needs_no_momentum():
    assert Config(optimizer="adamw", momentum=0.0).momentum == 0


def test_the_learning_rate_rises_and_falls_with_every_step():
    config = Config(epochs=4, schedule="cosine", warmup_epochs=0.5, schedule_unit="step")
    rises = [config.lr_at(step / 4, unit=1 / 4) for step in range(3)]
    assert rises == pytest.approx([0.25 / 0.75, 0.5 / 0.75, 1.0])
    assert config.lr_at(0.5 + 3.5 / 2, unit=1 / 4) == pytest.approx(0.5)
